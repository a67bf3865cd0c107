package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"tanka.dev/e2e/cluster/internal/gateway"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/local"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/sandbox"
	"tanka.dev/e2e/cluster/internal/selftest"
)

// hiddenCommands are how the launcher calls itself.
var hiddenCommands = map[string]func([]string) error{
	sandbox.EnterCommand: sandbox.Enter,
	sandbox.HoldCommand:  sandbox.Hold,
	gateway.Command:      gateway.Run,
	local.ProbeCommand:   func([]string) error { return local.Probe() },
}

var localCommands = map[string]command{
	"up":          localUp,
	"down":        onLocal(func(ctx context.Context, l *local.Local, _ []string) error { return l.Down(ctx) }),
	"status":      onLocal(func(ctx context.Context, l *local.Local, _ []string) error { return l.Status(ctx, os.Stdout) }),
	"load-images": onLocal((func(ctx context.Context, l *local.Local, files []string) error { return l.LoadImages(ctx, files) })),
	"logs":        onLocal(localLogs),
	"kubeconfig":  onLocal(localKubeconfig),
	"kubectl":     onLocal(localKubectl),
	"kill-node":   onNode((*local.Local).KillNode),
	"start-node":  onNode((*local.Local).StartNode),
	"inside":      onLocal(localInside),
	"expose":      onLocal(localExpose),
	"selftest":    localSelftest,
	"snapshot":    takeSnapshot,
	"check-clean": checkClean,
}

func onLocal(do func(context.Context, *local.Local, []string) error) command {
	return func(ctx context.Context, e environment, arguments []string) error {
		cluster, err := local.New(e.cluster)
		if err != nil {
			return err
		}
		return do(ctx, cluster, arguments)
	}
}

func onNode(do func(*local.Local, context.Context, layout.Node) error) command {
	return onLocal(func(ctx context.Context, l *local.Local, arguments []string) error {
		if len(arguments) != 1 {
			return refusal.New("say which node, by its number")
		}
		node, err := layout.ParseNode(arguments[0])
		if err != nil {
			return err
		}
		return do(l, ctx, node)
	})
}

func localUp(ctx context.Context, e environment, arguments []string) error {
	options := local.Options{Nodes: e.nodes, Port: e.port}
	for _, argument := range arguments {
		switch argument {
		case "--control-plane-only":
			options.ControlPlaneOnly = true
		case "--controller-manager":
			options.ControllerManager = true
		default:
			return refusal.New("up does not know %q; it takes --control-plane-only and --controller-manager", argument)
		}
	}
	cluster, err := local.New(e.cluster)
	if err != nil {
		return err
	}
	return cluster.Up(ctx, options)
}

func localLogs(_ context.Context, l *local.Local, arguments []string) error {
	word := ""
	if len(arguments) > 0 {
		word = arguments[0]
	}
	return l.Logs(os.Stdout, word)
}

func localKubeconfig(_ context.Context, l *local.Local, _ []string) error {
	if err := l.Running(); err != nil {
		return err
	}
	fmt.Println(l.Kubeconfig())
	return nil
}

// localKubectl becomes kubectl.
func localKubectl(_ context.Context, l *local.Local, arguments []string) error {
	if err := l.Running(); err != nil {
		return err
	}
	environment := append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	if err := syscall.Exec(l.Kubectl(), append([]string{"kubectl"}, arguments...), environment); err != nil {
		return fmt.Errorf("running kubectl: %w", err)
	}
	return nil
}

// localInside runs a command in a node's network, from where pods and services can be reached directly.
func localInside(_ context.Context, l *local.Local, arguments []string) error {
	node := layout.Node(1)
	if len(arguments) > 2 && arguments[0] == "--node" {
		chosen, err := layout.ParseNode(arguments[1])
		if err != nil {
			return err
		}
		node, arguments = chosen, arguments[2:]
	}
	if len(arguments) < 2 || arguments[0] != "--" {
		return refusal.New("say what to run: inside [--node N] -- COMMAND")
	}
	place, err := l.Inside(node)
	if err != nil {
		return err
	}
	process := sandbox.Command(place, arguments[1], arguments[2:]...)
	process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = process.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		return &exitError{exit.ExitCode()}
	}
	return err
}

func localExpose(ctx context.Context, l *local.Local, arguments []string) error {
	if len(arguments) != 2 {
		return refusal.New("say what to open: expose NAME ADDRESS:PORT")
	}
	address, err := l.Expose(ctx, arguments[0], arguments[1])
	if err != nil {
		return err
	}
	fmt.Println(address)
	return nil
}

func localSelftest(ctx context.Context, e environment, arguments []string) error {
	if len(arguments) > 0 {
		return localRobustness(ctx, e, arguments)
	}
	cluster, err := local.New(e.cluster)
	if err != nil {
		return err
	}
	if err := cluster.Status(ctx, io.Discard); err != nil {
		return err
	}
	nodes, err := cluster.Nodes()
	if err != nil {
		return err
	}
	if nodes == 0 {
		return refusal.New("the self-test needs a node; start a cluster without --control-plane-only")
	}
	launcher, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	bench := selftest.Bench{
		Cluster: cluster.Cluster, Launcher: launcher, Probe: filepath.Join(filepath.Dir(launcher), "probe"),
		Nodes: nodes, Out: os.Stdout,
	}
	return bench.Run(ctx)
}

func localRobustness(ctx context.Context, e environment, arguments []string) error {
	if len(arguments) != 1 || arguments[0] != "--robustness" {
		return refusal.New("selftest takes nothing, or --robustness")
	}
	launcher, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	test := selftest.Robustness{Launcher: launcher, Folder: filepath.Join(e.cluster.State, "robustness"), Out: os.Stdout}
	return test.Run(ctx)
}
