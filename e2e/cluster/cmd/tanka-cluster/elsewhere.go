package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// kindCommands leave everything to kind and a Docker engine.
var kindCommands = map[string]command{
	"up":          kindUp,
	"down":        kindDown,
	"status":      kindStatus,
	"kubeconfig":  kindKubeconfig,
	"kubectl":     kindKubectl,
	"load-images": kindLoad,
	"kill-node":   kindNode("kill"),
	"start-node":  kindNode("start"),
}

// existingCommands use the cluster that the current kubeconfig names, and change nothing about it.
var existingCommands = map[string]command{
	"up":         func(ctx context.Context, _ environment, _ []string) error { return existingAnswers(ctx) },
	"status":     func(ctx context.Context, _ environment, _ []string) error { return existingAnswers(ctx) },
	"down":       func(context.Context, environment, []string) error { return nil },
	"kubeconfig": existingKubeconfig,
	"kubectl":    func(ctx context.Context, _ environment, a []string) error { return passOn(ctx, nil, "kubectl", a...) },
	"load-images": func(context.Context, environment, []string) error {
		return refusal.New("images cannot be put into an existing cluster from here; push them to a registry that it reaches and name them in the platform's spec.images")
	},
}

// passOn runs a program with our streams and returns its exit code.
func passOn(ctx context.Context, environment []string, program string, arguments ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return refusal.New("%s is not installed; install it, or set CLUSTER=local on Linux as root", program)
	}
	process := exec.CommandContext(ctx, path, arguments...)
	process.Env = append(os.Environ(), environment...)
	process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = process.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &exitError{exit.ExitCode()}
	}
	return err
}

func kind(ctx context.Context, e environment, arguments ...string) error {
	return passOn(ctx, []string{"KUBECONFIG=" + e.cluster.Kubeconfig()}, "kind", append(arguments, "--name", e.cluster.Name)...)
}

func kindUp(ctx context.Context, e environment, _ []string) error {
	if !dockerAnswers(ctx) {
		return refusal.New("no Docker engine answers; start it, or set CLUSTER=local on Linux as root")
	}
	known, err := exec.CommandContext(ctx, "kind", "get", "clusters").Output()
	if err != nil {
		return refusal.New("kind does not work (%v); install it, or set CLUSTER=local on Linux as root", err)
	}
	for _, name := range strings.Fields(string(known)) {
		if name == e.cluster.Name {
			return kind(ctx, e, "export", "kubeconfig")
		}
	}
	config := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n"
	config += strings.Repeat("- role: worker\n", max(e.nodes-1, 0))
	file := e.cluster.Path("kind.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return refusal.New("%s cannot be written (%v); set TANKA_STATE to a folder that can", e.cluster.State, err)
	}
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return fmt.Errorf("writing kind's configuration: %w", err)
	}
	return kind(ctx, e, "create", "cluster", "--config", file, "--wait", "120s")
}

func kindDown(ctx context.Context, e environment, _ []string) error {
	if err := kind(ctx, e, "delete", "cluster"); err != nil {
		return err
	}
	if err := os.RemoveAll(e.cluster.Dir()); err != nil {
		return fmt.Errorf("removing the cluster's folder: %w", err)
	}
	return nil
}

func kindStatus(ctx context.Context, e environment, _ []string) error {
	return kindKubectl(ctx, e, []string{"get", "nodes"})
}

func kindKubeconfig(_ context.Context, e environment, _ []string) error {
	if _, err := os.Stat(e.cluster.Kubeconfig()); err != nil {
		return refusal.New("there is no cluster %q; start it with \"up\"", e.cluster.Name)
	}
	fmt.Println(e.cluster.Kubeconfig())
	return nil
}

func kindKubectl(ctx context.Context, e environment, arguments []string) error {
	return passOn(ctx, []string{"KUBECONFIG=" + e.cluster.Kubeconfig()}, "kubectl", arguments...)
}

func kindLoad(ctx context.Context, e environment, archives []string) error {
	for _, archive := range archives {
		if err := kind(ctx, e, "load", "image-archive", archive); err != nil {
			return err
		}
	}
	return nil
}

// kindNode kills or starts the container that is a node: the first worker is the second node.
func kindNode(verb string) command {
	return func(ctx context.Context, e environment, arguments []string) error {
		names := map[string]string{"1": "-control-plane", "2": "-worker", "3": "-worker2"}
		if len(arguments) != 1 || names[arguments[0]] == "" {
			return refusal.New("say which node, by its number from 1 to 3")
		}
		return passOn(ctx, nil, "docker", verb, e.cluster.Name+names[arguments[0]])
	}
}

func existingAnswers(ctx context.Context) error {
	err := passOn(ctx, nil, "kubectl", "get", "--raw", "/readyz")
	var exit *exitError
	if errors.As(err, &exit) {
		return refusal.New("the API server of the current kubeconfig does not answer; choose another context, or leave CLUSTER unset to start a cluster")
	}
	return err
}

func existingKubeconfig(context.Context, environment, []string) error {
	file := os.Getenv("KUBECONFIG")
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return refusal.New("neither KUBECONFIG nor HOME is set; set KUBECONFIG")
		}
		file = filepath.Join(home, ".kube", "config")
	}
	fmt.Println(file)
	return nil
}
