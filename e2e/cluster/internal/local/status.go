//go:build linux

package local

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tanka.dev/e2e/cluster/internal/kubeapi"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
)

// daemonPrograms names the program of every daemon, in the order in which status shows them.
func daemonPrograms(group string, r record) [][2]string {
	if group != layout.ControlPlane {
		return [][2]string{
			{holderName, "tanka-cluster"}, {"containerd", "containerd"}, {"kubelet", "kube"}, {"kube-proxy", "kube"}, {"node-agent", "node-agent"},
		}
	}
	daemons := [][2]string{{holderName, "tanka-cluster"}, {"gateway", "tanka-cluster"}, {"etcd", "kube"}, {"kube-apiserver", "kube"}}
	if r.ControllerManager {
		daemons = append(daemons, [2]string{"kube-controller-manager", "kube"})
	}
	if r.Nodes > 0 {
		daemons = append(daemons, [2]string{"kube-scheduler", "kube"})
	}
	return daemons
}

// Status writes what runs and what does not, and refuses if anything that should run does not.
func (l *Local) Status(ctx context.Context, out io.Writer) error {
	known, err := l.requireRecord()
	if err != nil {
		return err
	}
	dead := l.dead(known, func(group, daemon string, pid int) {
		state := "not running"
		if pid != 0 {
			state = fmt.Sprintf("running, pid %d", pid)
		}
		fmt.Fprintf(out, "%-14s %-24s %s\n", group, daemon, state)
	})
	if dead > 0 {
		return refusal.New("%d parts of cluster %q do not run; run \"up\" to start them again", dead, l.Name)
	}
	client, err := kubeapi.New(l.Kubeconfig())
	if err != nil {
		return err
	}
	if !client.Ready(ctx) {
		return refusal.New("the API server of cluster %q is not ready; look at %s", l.Name, l.Log(layout.ControlPlane, "kube-apiserver"))
	}
	fmt.Fprintf(out, "API server ready on https://127.0.0.1:%d\n", known.Port)
	return nil
}

// dead counts the daemons that should run and do not. It tells of each, when told to whom.
func (l *Local) dead(r record, tell func(group, daemon string, pid int)) int {
	groups := []string{layout.ControlPlane}
	for _, node := range layout.Nodes(r.Nodes) {
		groups = append(groups, node.Name())
	}
	dead := 0
	for _, group := range groups {
		for _, daemon := range daemonPrograms(group, r) {
			pid := l.find(group, daemon[0], daemon[1])
			if pid == 0 {
				dead++
			}
			if tell != nil {
				tell(group, daemon[0], pid)
			}
		}
	}
	return dead
}

// Nodes is how many nodes the cluster was started with.
func (l *Local) Nodes() (int, error) {
	known, err := l.requireRecord()
	return known.Nodes, err
}

// Running reports whether the cluster's kubeconfig is of use.
func (l *Local) Running() error {
	if _, err := l.requireRecord(); err != nil {
		return err
	}
	if _, err := os.Stat(l.Kubeconfig()); err != nil {
		return refusal.New("cluster %q was never fully started; run \"up\"", l.Name)
	}
	return nil
}

// Logs writes the logs of all daemons, or of those whose name contains a word.
func (l *Local) Logs(out io.Writer, word string) error {
	if _, err := l.requireRecord(); err != nil {
		return err
	}
	files, err := filepath.Glob(l.Path("logs", "*.log"))
	if err != nil {
		return fmt.Errorf("looking for logs: %w", err)
	}
	shown := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		if !strings.Contains(name, word) {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
		shown++
		fmt.Fprintf(out, "==> %s <==\n%s\n", name, text)
	}
	if shown == 0 {
		return refusal.New("no daemon of cluster %q has a log whose name contains %q; try \"logs kubelet\"", l.Name, word)
	}
	return nil
}
