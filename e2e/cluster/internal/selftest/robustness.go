package selftest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Robustness shows, on clusters of its own, that no fault leaves anything that the next run cannot take up, and
// that the machine afterwards is as it was.
type Robustness struct {
	Launcher string
	Folder   string // for state; removed at the end
	Out      io.Writer
}

// Run makes every check in order, and takes its clusters down in any case.
func (r *Robustness) Run(ctx context.Context) error {
	snapshot := filepath.Join(r.Folder, "before.json")
	if err := os.MkdirAll(r.Folder, 0o755); err != nil {
		return fmt.Errorf("making a folder for the test: %w", err)
	}
	if err := r.on("one", "snapshot", snapshot); err != nil {
		return err
	}
	defer func() {
		for _, name := range []string{"one", "two"} {
			_ = r.on(name, "down")
		}
	}()
	for _, check := range []check{
		{"refusals are one sentence and exit code 2", r.refusals},
		{"up, and up again, and down", r.upTwice},
		{"any daemon killed, up recovers", r.daemonsKilled},
		{"everything killed, up recovers", r.allKilled},
		{"the launcher killed in the middle, up goes on", r.launcherKilled},
		{"two clusters side by side", r.twoClusters},
		{"anything killed, down removes everything", r.downAfterKill},
	} {
		start := time.Now()
		if err := check.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", check.name, err)
		}
		fmt.Fprintf(r.Out, "ok %s (%.1f s)\n", check.name, time.Since(start).Seconds())
	}
	for _, command := range [][]string{{"check-clean"}, {"check-clean", "--against", snapshot}} {
		if err := r.on("one", command...); err != nil {
			return err
		}
	}
	fmt.Fprintln(r.Out, "ok the machine is as it was")
	return nil
}

func (r *Robustness) command(name string, arguments ...string) *exec.Cmd {
	command := exec.Command(r.Launcher, arguments...)
	command.Env = append(os.Environ(), "CLUSTER=local", "CLUSTER_NAME="+name, "TANKA_STATE="+r.Folder, "NODES=", "API_PORT=")
	return command
}

func (r *Robustness) on(name string, arguments ...string) error {
	_, err := output(r.command(name, arguments...))
	return err
}

func (r *Robustness) refusals(context.Context) error {
	for _, bad := range []struct{ variable, value, command string }{
		{"NODES", "4", "up"}, {"NODES", "x", "up"}, {"CLUSTER", "cloud", "up"}, {"CLUSTER_NAME", "No!", "up"}, {"API_PORT", "0", "up"},
		{"TANKA_STATE", "/run/tanka", "up"}, {"TANKA_STATE", "/proc/none", "up"}, {"PATH", "/none", "up"},
		{"NODES", "1", "status"}, {"NODES", "1", "kubeconfig"}, {"NODES", "1", "kill-node"}, {"NODES", "1", "load-images"}, {"NODES", "1", "fly"},
	} {
		command := r.command("one", bad.command)
		command.Env = append(command.Env, bad.variable+"="+bad.value)
		said, err := command.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 || len(strings.TrimSpace(string(said))) == 0 {
			return fmt.Errorf("%s=%s %s ended with %v and said %q", bad.variable, bad.value, bad.command, err, said)
		}
	}
	return nil
}

func (r *Robustness) upTwice(context.Context) error {
	for _, command := range []string{
		"up", "up", "status", "down", "check-clean", "down",
		"up --control-plane-only", "status", "down", "up --control-plane-only --controller-manager", "status", "down", "check-clean",
	} {
		start := time.Now()
		if err := r.on("one", strings.Fields(command)...); err != nil {
			return err
		}
		fmt.Fprintf(r.Out, "   %s %.1f s\n", command, time.Since(start).Seconds())
	}
	return nil
}

// pids reads what runs from status.
func (r *Robustness) pids(name string) (map[string]int, error) {
	text, err := r.command(name, "status").Output()
	if err != nil {
		return nil, fmt.Errorf("status: %w", err)
	}
	pids := map[string]int{}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if pid, err := strconv.Atoi(fields[len(fields)-1]); err == nil && len(fields) == 5 {
			pids[fields[0]+" "+fields[1]] = pid
		}
	}
	return pids, nil
}

func (r *Robustness) daemonsKilled(context.Context) error {
	if err := r.on("one", "up"); err != nil {
		return err
	}
	all, err := r.pids("one")
	if err != nil {
		return err
	}
	for daemon := range all {
		current, err := r.pids("one")
		if err != nil {
			return err
		}
		if err := syscall.Kill(current[daemon], syscall.SIGKILL); err != nil {
			return fmt.Errorf("killing %s: %w", daemon, err)
		}
		start := time.Now()
		for _, command := range []string{"up", "status"} {
			if err := r.on("one", command); err != nil {
				return fmt.Errorf("after %s was killed: %w", daemon, err)
			}
		}
		fmt.Fprintf(r.Out, "   %s: up again after %.1f s\n", daemon, time.Since(start).Seconds())
	}
	return nil
}

func (r *Robustness) allKilled(context.Context) error {
	all, err := r.pids("one")
	if err != nil {
		return err
	}
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, command := range []string{"up", "status", "down", "check-clean"} {
		if err := r.on("one", command); err != nil {
			return err
		}
	}
	return nil
}

// launcherKilled ends "up" at many moments: sometimes "down" must cope with what is there, sometimes the next "up",
// after several failures in a row.
func (r *Robustness) launcherKilled(context.Context) error {
	for _, series := range [][]time.Duration{{5, 20, 60}, {120, 300, 700}, {1500, 3000, 4500}} {
		for _, then := range [][]string{{"down", "check-clean"}, {}} {
			for _, delay := range series {
				up := r.command("one", "up")
				if err := up.Start(); err != nil {
					return fmt.Errorf("starting up: %w", err)
				}
				time.Sleep(delay * time.Millisecond)
				_ = up.Process.Kill()
				_ = up.Wait()
				for _, command := range then {
					if err := r.on("one", command); err != nil {
						return fmt.Errorf("killed after %d ms: %w", delay, err)
					}
				}
			}
		}
		for _, command := range []string{"up", "status", "down", "check-clean"} {
			if err := r.on("one", command); err != nil {
				return fmt.Errorf("killed after each of %d ms: %w", series, err)
			}
		}
	}
	return nil
}

func (r *Robustness) twoClusters(context.Context) error {
	done := make(chan error, 2)
	for _, name := range []string{"one", "two"} {
		go func() { done <- r.on(name, "up") }()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		return err
	}
	for _, step := range [][]string{{"one", "status"}, {"two", "status"}, {"one", "down"}, {"one", "check-clean"}, {"two", "status"}, {"two", "kubectl", "get", "nodes"}, {"two", "down"}} {
		if err := r.on(step[0], step[1:]...); err != nil {
			return err
		}
	}
	return nil
}

func (r *Robustness) downAfterKill(context.Context) error {
	for _, victims := range []string{"holder", "containerd", "kube", "node-1", "control-plane"} {
		if err := r.on("one", "up"); err != nil {
			return err
		}
		all, err := r.pids("one")
		if err != nil {
			return err
		}
		for daemon, pid := range all {
			if strings.Contains(daemon, victims) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		for _, command := range []string{"down", "check-clean"} {
			if err := r.on("one", command); err != nil {
				return fmt.Errorf("after %s was killed: %w", victims, err)
			}
		}
	}
	return nil
}
