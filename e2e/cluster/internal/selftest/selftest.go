// Package selftest shows on a running cluster that what tests rely on works. It talks to the cluster only through
// kubectl and the launcher's own commands, as a person would.
package selftest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tanka.dev/e2e/cluster/internal/image"
	"tanka.dev/e2e/cluster/internal/layout"
)

//go:embed objects.yaml
var objects string

const (
	testImage = "localhost/tanka-system/probe:1"
	namespace = "selftest"
)

// Bench is the cluster under test.
type Bench struct {
	Cluster  layout.Cluster
	Launcher string // this program, which is called for its own commands
	Probe    string // the program that runs in pods
	Nodes    int
	Out      io.Writer
}

type check struct {
	name string
	run  func(context.Context) error
}

// Run makes every check in order and stops at the first that fails.
func (b *Bench) Run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	for _, check := range b.checks() {
		start := time.Now()
		if err := check.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Fprintf(b.Out, "ok %s (%.1f s)\n", check.name, time.Since(start).Seconds())
	}
	_, err := b.kubectl(ctx, "delete", "namespace", namespace, "--wait=true")
	return err
}

func (b *Bench) checks() []check {
	return []check{
		{"images load, and load again at once", b.imagesLoad},
		{"restricted pods start with a dynamic volume", b.podsStart},
		{"exec, logs and port-forward work from the host", b.hostAccess},
		{"DNS answers in pods, and nothing outside does", b.names},
		{"services are reachable, also by a pod from itself", b.services},
		{"ingress policies open and close", b.ingressPolicy},
		{"egress policies open and close", b.egressPolicy},
		{"a volume grows", b.volumeGrows},
		{"resource metrics reach kubectl top and the autoscaler", b.metrics},
		{"a lost node is noticed, and comes back with its data", b.nodeLoss},
		{"a deleted claim takes its folder with it", b.volumeDeleted},
	}
}

func (b *Bench) lastNode() layout.Node { return layout.Node(b.Nodes) }

// setUp clears what an interrupted run left and writes the image.
func (b *Bench) setUp(ctx context.Context) error {
	if _, err := b.kubectl(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--wait=true"); err != nil {
		return err
	}
	return image.Write(b.archive(), image.Program{Reference: testImage, File: b.Probe})
}

func (b *Bench) archive() string { return b.Cluster.Path("probe.tar") }

func (b *Bench) imagesLoad(ctx context.Context) error {
	if _, err := b.launcher(ctx, "load-images", b.archive()); err != nil {
		return err
	}
	said, err := b.launcher(ctx, "load-images", b.archive())
	if err == nil && strings.Contains(said, "imported") {
		err = errors.New("an image that is there was imported again")
	}
	return err
}

func (b *Bench) podsStart(ctx context.Context) error {
	filled := strings.NewReplacer("${IMAGE}", testImage, "${LAST_NODE}", b.lastNode().Name()).Replace(objects)
	if _, err := b.kubectlInput(ctx, filled, "apply", "-f", "-"); err != nil {
		return err
	}
	for _, what := range []string{"statefulset/server", "deployment/client"} {
		if _, err := b.kubectl(ctx, "-n", namespace, "rollout", "status", what, "--timeout=60s"); err != nil {
			return err
		}
	}
	_, err := b.inPod(ctx, "server-0", "write", "/data/word", "kept")
	return err
}

func (b *Bench) names(ctx context.Context) error {
	if _, err := b.inPod(ctx, "deploy/client", "resolve", "server"); err != nil {
		return err
	}
	if _, err := b.inPod(ctx, "deploy/client", "resolve", "kubernetes.default.svc.cluster.local"); err != nil {
		return err
	}
	if _, err := b.inPod(ctx, "deploy/client", "resolve", "example.com."); err == nil {
		return errors.New("a name outside the cluster was resolved")
	}
	// An address that is reserved for documentation: nobody has it, and there is no way to it either.
	if _, err := b.inPod(ctx, "deploy/client", "dial", "192.0.2.1:80"); err == nil {
		return errors.New("an address outside the cluster was reached")
	}
	return nil
}

func (b *Bench) services(ctx context.Context) error {
	for _, from := range []string{"deploy/client", "server-0"} {
		err := b.eventually(ctx, 10*time.Second, func() error {
			_, err := b.inPod(ctx, from, "get", "http://server/")
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := b.launcher(ctx, "inside", "--", b.Probe, "get", "http://"+b.serviceIP(ctx)+"/")
	return err
}

func (b *Bench) serviceIP(ctx context.Context) string {
	address, _ := b.kubectl(ctx, "-n", namespace, "get", "service", "server", "-o", "jsonpath={.spec.clusterIP}")
	return address
}

func (b *Bench) kubectl(ctx context.Context, arguments ...string) (string, error) {
	return b.kubectlInput(ctx, "", arguments...)
}

func (b *Bench) kubectlInput(ctx context.Context, input string, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, b.Cluster.Component("kube"), append([]string{"kubectl"}, arguments...)...)
	command.Env = append(os.Environ(), "KUBECONFIG="+b.Cluster.Kubeconfig())
	command.Stdin = strings.NewReader(input)
	return output(command)
}

// inPod runs the probe in a pod.
func (b *Bench) inPod(ctx context.Context, pod string, arguments ...string) (string, error) {
	return b.kubectl(ctx, append([]string{"-n", namespace, "exec", pod, "--", "/program"}, arguments...)...)
}

func (b *Bench) launcher(ctx context.Context, arguments ...string) (string, error) {
	return output(exec.CommandContext(ctx, b.Launcher, arguments...))
}

func output(command *exec.Cmd) (string, error) {
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s: %s: %w", strings.Join(append([]string{filepath.Base(command.Path)}, command.Args[1:]...), " "), strings.TrimSpace(errs.String()), err)
	}
	return out.String() + errs.String(), nil
}

// eventually asks until there is no error, and returns the last one when time runs out.
func (b *Bench) eventually(ctx context.Context, limit time.Duration, ask func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil || time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
