//go:build linux

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"tanka.dev/e2e/cluster/internal/gateway"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/sandbox"
	"tanka.dev/e2e/cluster/internal/settings"
)

// The process that holds a group's namespaces open.
const holderName = "holder"

// holder is the process that holds a group's namespaces open, or 0.
func (l *Local) holder(group string) int {
	return l.trees.Find(l.DaemonCgroup(group, holderName), filepath.Base(l.launcher))
}

// controlPlane is the holder of the control plane's namespace if its links are complete, or 0. The file names the
// holder that it speaks of, so an interrupted run cannot leave a half-wired namespace that looks whole.
func (l *Local) controlPlane() int {
	holder := l.holder(layout.ControlPlane)
	wired, _ := os.ReadFile(l.Path("control-plane.wired"))
	if holder == 0 || string(wired) != strconv.Itoa(holder) {
		return 0
	}
	return holder
}

// ensureControlPlane opens the control plane's namespace. Nodes hang on its bridge, so without it they go too.
func (l *Local) ensureControlPlane() (int, error) {
	if holder := l.controlPlane(); holder != 0 {
		return holder, nil
	}
	if err := l.trees.KillAll(l.Cgroup(), patience); err != nil {
		return 0, err
	}
	group := l.DaemonCgroup(layout.ControlPlane, holderName)
	if err := l.trees.Create(group); err != nil {
		return 0, err
	}
	if err := sandbox.Open(sandbox.Holder{Cgroup: group}); err != nil {
		return 0, err
	}
	holder := l.holder(layout.ControlPlane)
	if err := sandbox.WireControlPlane(holder); err != nil {
		return 0, err
	}
	return holder, writeFile(l.Path("control-plane.wired"), strconv.Itoa(holder))
}

func (l *Local) gatewayRuns() bool {
	return l.trees.Find(l.DaemonCgroup(layout.ControlPlane, "gateway"), filepath.Base(l.launcher)) != 0
}

// ensureGateway starts what carries connections from the host's loopback to the API server: a process inside the
// namespace that inherits a socket from outside. It is the only thing that a cluster adds to the host's network.
func (l *Local) ensureGateway(holder int, wanted *record) error {
	if l.gatewayRuns() {
		return nil
	}
	listener, err := l.listen(wanted)
	if err != nil {
		return err
	}
	defer listener.Close()
	socket, err := listener.File()
	if err != nil {
		return fmt.Errorf("handing on the API server's socket: %w", err)
	}
	defer socket.Close()
	if err := l.saveRecord(*wanted); err != nil {
		return err
	}
	server := "https://127.0.0.1:" + strconv.Itoa(wanted.Port)
	if err := l.writeKubeconfig(l.Kubeconfig(), "admin", server); err != nil {
		return err
	}
	return l.ensure(&daemon{
		group: layout.ControlPlane, name: "gateway", program: l.launcher, net: holder, extra: []*os.File{socket},
		arguments: []string{gateway.Command, fmt.Sprintf("%s:%d", layout.ControlPlaneIP, layout.APIServerPort)},
	})
}

func (l *Local) component(holder int, name string, arguments []string) *daemon {
	return &daemon{
		group: layout.ControlPlane, name: name, program: l.Component("kube"), net: holder,
		arguments: append([]string{name}, arguments...),
	}
}

// startServers starts etcd and the API server together; the latter waits for the former by itself.
func (l *Local) startServers(holder int, wanted record) ([]*daemon, error) {
	if err := writeFile(l.Path("audit-policy.yaml"), settings.AuditPolicy()); err != nil {
		return nil, err
	}
	return l.ensureAll(
		l.component(holder, "etcd", settings.Etcd(l.Cluster)),
		l.component(holder, "kube-apiserver", settings.APIServer(l.Cluster, wanted.ControllerManager)),
	)
}

// startControllers starts what needs an API server that answers: earlier, each would wait out a back-off.
func (l *Local) startControllers(holder int, wanted record) ([]*daemon, error) {
	var daemons []*daemon
	if wanted.ControllerManager {
		daemons = append(daemons, l.component(holder, "kube-controller-manager", settings.ControllerManager(l.Cluster)))
	}
	if wanted.Nodes > 0 {
		daemons = append(daemons, l.component(holder, "kube-scheduler", settings.Scheduler(l.Cluster)))
	}
	return l.ensureAll(daemons...)
}

func (l *Local) ensureAll(daemons ...*daemon) ([]*daemon, error) {
	for _, d := range daemons {
		if err := l.ensure(d); err != nil {
			return nil, err
		}
	}
	return daemons, nil
}
