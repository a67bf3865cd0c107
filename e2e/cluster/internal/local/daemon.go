//go:build linux

package local

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"tanka.dev/e2e/cluster/internal/sandbox"
)

// daemon is a program that outlives the launcher.
type daemon struct {
	group, name string // its cgroup and its log are named after these
	program     string
	arguments   []string
	net, mount  int // processes whose namespaces it enters
	extra       []*os.File
	log         string
	ended       atomic.Bool // it ended while we watched
}

// find is a daemon's process, or 0. A launcher in its group is about to become the daemon.
func (l *Local) find(group, name, program string) int {
	return l.trees.Find(l.DaemonCgroup(group, name), program, filepath.Base(l.launcher))
}

// ensure starts a daemon unless it runs.
func (l *Local) ensure(d *daemon) error {
	group := l.DaemonCgroup(d.group, d.name)
	d.log = l.Log(d.group, d.name)
	if l.find(d.group, d.name, filepath.Base(d.program)) != 0 {
		return nil
	}
	if err := l.trees.Create(group); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(d.log), 0o755); err != nil {
		return fmt.Errorf("making the folder for logs: %w", err)
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("opening a log: %w", err)
	}
	defer log.Close()
	command := sandbox.Command(sandbox.Place{Cgroup: group, Net: d.net, Mount: d.mount}, d.program, d.arguments...)
	command.Dir, command.Stdout, command.Stderr, command.ExtraFiles = "/", log, log, d.extra
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Env = append(os.Environ(), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	if err := command.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", d.name, err)
	}
	l.started.Add(1)
	go func() {
		_ = command.Wait()
		d.ended.Store(true)
	}()
	// Until it has joined its group it cannot be found, and would be taken for dead and started again.
	return waitFor(context.Background(), patience, d.name+" to join its cgroup", func() (bool, error) {
		return l.find(d.group, d.name, filepath.Base(d.program)) != 0 || d.ended.Load(), nil
	})
}

// failed explains why a daemon that should run does not.
func (d *daemon) failed() error {
	if !d.ended.Load() {
		return nil
	}
	return fmt.Errorf("%s of %s ended at once; the end of %s:\n%s", d.name, d.group, d.log, tail(d.log, 8))
}

func anyFailed(daemons []*daemon) error {
	for _, d := range daemons {
		if err := d.failed(); err != nil {
			return err
		}
	}
	return nil
}

func tail(path string, lines int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.TrimSpace(string(bytes.Join(all, []byte("\n"))))
}
