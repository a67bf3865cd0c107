//go:build linux

package local

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"tanka.dev/e2e/cluster/internal/image"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/sandbox"
)

// LoadImages imports archives into every node that runs. What a node already holds is left alone.
func (l *Local) LoadImages(ctx context.Context, archives []string) error {
	if len(archives) == 0 {
		return refusal.New("load-images needs at least one image archive, as written by \"docker save\" or \"buildah push\"")
	}
	known, err := l.requireRecord()
	if err != nil {
		return err
	}
	contents := map[string][]image.Image{}
	for i, archive := range archives {
		if archives[i], err = filepath.Abs(archive); err != nil {
			return fmt.Errorf("finding %s: %w", archive, err)
		}
		if contents[archives[i]], err = image.Read(archives[i]); err != nil {
			return err
		}
	}
	running := 0
	var all errgroup.Group
	for _, node := range layout.Nodes(known.Nodes) {
		holder := l.node(l.controlPlane(), node)
		if holder == 0 || !containerdAnswers(holder) {
			fmt.Fprintf(os.Stderr, "%s does not run and is passed over\n", node.Name())
			continue
		}
		running++
		all.Go(func() error { return l.loadOnNode(ctx, node, holder, archives, contents) })
	}
	if running == 0 {
		return refusal.New("no node of cluster %q runs; run \"up\" first", l.Name)
	}
	return all.Wait()
}

func (l *Local) loadOnNode(ctx context.Context, node layout.Node, holder int, archives []string, contents map[string][]image.Image) error {
	held, err := l.heldImages(ctx, holder)
	if err != nil {
		return err
	}
	for _, archive := range archives {
		missing := false
		for _, image := range contents[archive] {
			target, ok := held[image.Reference]
			missing = missing || !ok || target != held[image.Config]
		}
		if !missing {
			continue
		}
		if err := l.importArchive(ctx, holder, archive); err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "%s: imported %s\n", node.Name(), filepath.Base(archive))
	}
	return nil
}

// heldImages maps every name on a node to the digest that it points to. The runtime also keeps a name for each
// configuration's digest, which tells whether a tag still means the same content.
func (l *Local) heldImages(ctx context.Context, holder int) (map[string]string, error) {
	output, err := runCtr(ctx, holder, "images", "list")
	if err != nil {
		return nil, err
	}
	return parseImages(output), nil
}

func parseImages(table string) map[string]string {
	held := map[string]string{}
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 2 && strings.HasPrefix(fields[2], "sha256:") {
			held[fields[0]] = fields[2]
		}
	}
	return held
}

// importArchive unpacks an archive on a node and marks its images as the kubelet's to use.
func (l *Local) importArchive(ctx context.Context, holder int, archive string) error {
	images, err := image.Read(archive)
	if err != nil {
		return err
	}
	if _, err := runCtr(ctx, holder, "images", "import", archive); err != nil {
		return err
	}
	for _, image := range images {
		if _, err := runCtr(ctx, holder, "images", "label", image.Reference, "io.cri-containerd.image=managed"); err != nil {
			return err
		}
	}
	return waitFor(ctx, patience, "the runtime to notice its new images", func() (bool, error) {
		held, err := l.heldImages(ctx, holder)
		for _, image := range images {
			if held[image.Config] == "" {
				return false, err
			}
		}
		return true, err
	})
}

func runCtr(ctx context.Context, holder int, arguments ...string) (string, error) {
	place := sandbox.Place{Net: holder, Mount: holder}
	arguments = append([]string{"--address", layout.ContainerdSocket, "--namespace", "k8s.io"}, arguments...)
	command := sandbox.Command(place, "ctr", arguments...)
	stop := context.AfterFunc(ctx, func() {
		if command.Process != nil {
			_ = command.Process.Kill()
		}
	})
	defer stop()
	output, err := command.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %s: %w", strings.Join(arguments[4:], " "), strings.TrimSpace(string(output)), err)
	}
	return string(output), nil
}
