//go:build linux

package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"tanka.dev/e2e/cluster/internal/gateway"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
)

var doorName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Expose opens a door on the host's loopback to an address that node 1 can reach, and answers with the door's own
// address. A door that stands and leads to the same target is used again; it goes with the cluster.
func (l *Local) Expose(ctx context.Context, name, target string) (string, error) {
	if !doorName.MatchString(name) {
		return "", refusal.New("%q cannot name a door; use lower-case letters, digits and hyphens", name)
	}
	if _, _, err := net.SplitHostPort(target); err != nil {
		return "", refusal.New("%q is no target; write ADDRESS:PORT", target)
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := l.requireRecord(); err != nil {
		return "", err
	}
	node, err := l.Inside(layout.Node(1))
	if err != nil {
		return "", err
	}
	daemonName, file := "door-"+name, l.Path("doors", name)
	group := l.DaemonCgroup(layout.ControlPlane, daemonName)
	address, known := "127.0.0.1:0", ""
	if text, err := os.ReadFile(file); err == nil {
		address, known, _ = strings.Cut(strings.TrimSpace(string(text)), " ")
	}
	if l.trees.Find(group, filepath.Base(l.launcher)) != 0 {
		if known == target {
			return address, nil
		}
		if err := l.trees.KillAll(group, 5*time.Second); err != nil {
			return "", fmt.Errorf("closing the old door %s: %w", name, err)
		}
	}
	listener, err := net.Listen("tcp4", address)
	if err != nil { // somebody has taken the port in the meantime
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return "", fmt.Errorf("opening a port for %s: %w", name, err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return "", fmt.Errorf("handing on the socket of %s: %w", name, err)
	}
	defer socket.Close()
	if err := writeFile(file, listener.Addr().String()+" "+target+"\n"); err != nil {
		return "", err
	}
	return listener.Addr().String(), l.ensure(&daemon{
		group: layout.ControlPlane, name: daemonName, program: l.launcher, net: node.Net,
		extra: []*os.File{socket}, arguments: []string{gateway.Command, target},
	})
}
