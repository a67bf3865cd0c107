//go:build linux

// Package local runs a cluster on this machine: it brings what is there to what is wanted, whatever an earlier run
// left behind. A daemon's cgroup is its identity, so there is nothing else to keep in step with reality.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
)

// Local is one cluster on this machine.
type Local struct {
	layout.Cluster
	trees    cgroup.Hierarchies
	launcher string // this program
	cni      string // folder of the network plug-ins

	started atomic.Int32 // daemons that this run has started
}

// New looks at the machine; it changes nothing.
func New(c layout.Cluster) (*Local, error) {
	trees, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	launcher, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return &Local{Cluster: c, trees: trees, launcher: launcher}, nil
}

// Options say what cluster is wanted. Zero nodes means "as many as it has", or one.
type Options struct {
	Nodes             int
	Port              int // of the API server on 127.0.0.1; 0 lets the system choose
	ControlPlaneOnly  bool
	ControllerManager bool // with ControlPlaneOnly
}

// record is what a cluster was started as; it is written before anything is started.
type record struct {
	Nodes             int    `json:"nodes"`
	Port              int    `json:"port"`
	ControllerManager bool   `json:"controllerManager"`
	Components        string `json:"components"`
	CNI               string `json:"cni"`
}

func (l *Local) loadRecord() (record, bool, error) {
	var r record
	text, err := os.ReadFile(l.Path("cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, fmt.Errorf("reading the cluster's record: %w", err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, false, refusal.New("%s is damaged; take the cluster down and up again", l.Path("cluster.json"))
	}
	return r, true, nil
}

func (l *Local) saveRecord(r record) error { return writeJSON(l.Path("cluster.json"), r) }

// requireRecord is for commands that make sense only on a cluster that was started.
func (l *Local) requireRecord() (record, error) {
	r, found, err := l.loadRecord()
	if err == nil && !found {
		err = refusal.New("there is no cluster %q; start it with \"up\"", l.Name)
	}
	l.Components, l.cni = r.Components, r.CNI
	return r, err
}

// lock makes commands that change the cluster wait for each other. The kernel drops it when its holder dies.
func (l *Local) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(l.LockFile()), 0o755); err != nil {
		return nil, refusal.New("%s cannot be written (%v); set TANKA_STATE to a folder that can", l.State, err)
	}
	file, err := os.OpenFile(l.LockFile(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, refusal.New("%s cannot be written (%v); set TANKA_STATE to a folder that can", l.LockFile(), err)
	}
	for told := false; ; told = true {
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { file.Close() }, nil
		}
		if !told {
			fmt.Fprintf(os.Stderr, "waiting for another command on cluster %q to end\n", l.Name)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, refusal.New("another command still works on cluster %q; wait for it or end it, then try again", l.Name)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// writeJSON replaces a file as a whole.
func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding %s: %w", path, err)
	}
	return writeFile(path, string(text)+"\n")
}

// writeFile replaces a file as a whole, so that an interrupted run leaves the old one or the new one.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", path, err)
	}
	if err := os.WriteFile(path+".partial", []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if err := os.Rename(path+".partial", path); err != nil {
		return fmt.Errorf("putting %s in place: %w", path, err)
	}
	return nil
}

// waitFor asks again until the answer is yes. What is waited for is named when time runs out.
func waitFor(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for pause := 2 * time.Millisecond; ; {
		ok, err := done()
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("waited %s for %s in vain", limit, what)
			}
			return ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, 50*time.Millisecond)
		}
	}
}
