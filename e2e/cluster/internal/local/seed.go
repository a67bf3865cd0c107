//go:build linux

package local

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tanka.dev/e2e/cluster/internal/image"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/sandbox"
	"tanka.dev/e2e/cluster/internal/settings"
)

var systemImages = map[string]string{
	"pause": settings.PauseImage, "coredns": settings.DNSImage, "metrics-server": settings.MetricsImage,
}

// seedGroup is the group of the container runtime that fills the seed.
const seedGroup = "seed"

// ensureSeed imports the system's images once into a container runtime's folder, which nodes then copy. Only one
// process at a time does it; the folder appears whole or not at all.
func (l *Local) ensureSeed(ctx context.Context) error {
	if _, err := os.Stat(l.SeedDir()); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(l.SeedDir()), 0o755); err != nil {
		return refusal.New("%s cannot be written (%v); set TANKA_CACHE to a folder that can", l.Cache, err)
	}
	lock, err := os.OpenFile(l.SeedDir()+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return refusal.New("%s cannot be written (%v); set TANKA_CACHE to a folder that can", l.Cache, err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("waiting for another cluster's first start: %w", err)
	}
	if _, err := os.Stat(l.SeedDir()); err == nil {
		return nil
	}
	partial := l.SeedDir() + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("clearing an interrupted import: %w", err)
	}
	if err := l.fillSeed(ctx, partial); err != nil {
		return err
	}
	if err := os.Rename(partial, l.SeedDir()); err != nil {
		return fmt.Errorf("putting the system's images in place: %w", err)
	}
	return nil
}

func (l *Local) fillSeed(ctx context.Context, folder string) error {
	if err := os.MkdirAll(filepath.Join(folder, "pod-logs"), 0o755); err != nil {
		return fmt.Errorf("making %s: %w", folder, err)
	}
	config := filepath.Join(folder, "containerd.toml")
	if err := writeFile(config, settings.Containerd(layout.NodeMount+"/containerd", l.cni)); err != nil {
		return err
	}
	group := l.DaemonCgroup(seedGroup, holderName)
	if err := l.trees.KillAll(l.Cgroup()+"/"+seedGroup, patience); err != nil {
		return err
	}
	if err := l.trees.Create(group); err != nil {
		return err
	}
	if err := sandbox.Open(sandbox.Holder{Cgroup: group, Disk: folder}); err != nil {
		return err
	}
	holder := l.holder(seedGroup)
	defer func() {
		_ = l.trees.KillAll(l.Cgroup()+"/"+seedGroup, patience)
		_ = l.trees.Remove(l.Cgroup() + "/" + seedGroup)
	}()
	runtime := &daemon{
		group: seedGroup, name: "containerd", program: "containerd", net: holder, mount: holder,
		arguments: []string{"--config", config, "--log-level", "warn"},
	}
	if err := l.ensure(runtime); err != nil {
		return err
	}
	err := waitFor(ctx, patience, "containerd", func() (bool, error) { return containerdAnswers(holder), runtime.failed() })
	if err != nil {
		return err
	}
	for program, reference := range systemImages {
		archive := filepath.Join(folder, program+".tar")
		if err := image.Write(archive, image.Program{Reference: reference, File: l.Component(program)}); err != nil {
			return err
		}
		if err := l.importArchive(ctx, holder, archive); err != nil {
			return err
		}
		if err := os.Remove(archive); err != nil {
			return fmt.Errorf("removing %s: %w", archive, err)
		}
	}
	return l.stopGently(runtime)
}

// stopGently lets the runtime close its database before the folder is copied.
func (l *Local) stopGently(d *daemon) error {
	pid := l.trees.Find(l.DaemonCgroup(d.group, d.name), filepath.Base(d.program))
	if pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	return waitFor(context.Background(), 20*time.Second, d.name+" to stop", func() (bool, error) {
		return l.trees.Find(l.DaemonCgroup(d.group, d.name), filepath.Base(d.program)) == 0, nil
	})
}

// fillContainerd gives a new node the system's images: layers by hard links, since nothing writes to them, and the
// databases as copies.
func (l *Local) fillContainerd(node layout.Node) error {
	target := filepath.Join(l.NodeDir(node), "containerd")
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	partial := target + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("clearing an interrupted copy: %w", err)
	}
	if err := cloneTree(filepath.Join(l.SeedDir(), "containerd"), partial); err != nil {
		return err
	}
	if err := os.Rename(partial, target); err != nil {
		return fmt.Errorf("putting a node's images in place: %w", err)
	}
	return nil
}

func cloneTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading the system's images: %w", err)
		}
		target := to + strings.TrimPrefix(path, from)
		switch {
		case entry.IsDir():
			err = cloneFolder(path, target)
		case entry.Type()&fs.ModeSymlink != 0:
			err = cloneLink(path, target)
		case !entry.Type().IsRegular():
			return nil // a socket of the runtime that filled the seed
		case strings.HasSuffix(path, ".db") || os.Link(path, target) != nil:
			err = copyFile(path, target)
		}
		if err != nil {
			return fmt.Errorf("copying the system's images: %w", err)
		}
		return nil
	})
}

func cloneFolder(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(to, info.Mode()); err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return os.Chown(to, int(owner.Uid), int(owner.Gid))
}

func cloneLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, info.Mode())
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	if closing := target.Close(); err == nil {
		err = closing
	}
	return err
}
