//go:build linux

package local

import (
	"context"
	"fmt"
	"os"
)

// Down removes every trace of the cluster, whatever state it is in. Namespaces, links, rules and mounts have no
// existence of their own: they end with the last process inside.
func (l *Local) Down(ctx context.Context) error {
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := l.trees.KillAll(l.Cgroup(), patience); err != nil {
		return err
	}
	if err := l.trees.Remove(l.Cgroup()); err != nil {
		return err
	}
	if err := os.RemoveAll(l.Dir()); err != nil {
		return fmt.Errorf("removing the cluster's folder: %w", err)
	}
	return nil
}
