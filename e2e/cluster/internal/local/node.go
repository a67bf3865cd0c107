//go:build linux

package local

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"tanka.dev/e2e/cluster/internal/kubeapi"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/sandbox"
	"tanka.dev/e2e/cluster/internal/settings"
)

// prepareNode lays out a node's disk and writes its configuration.
func (l *Local) prepareNode(node layout.Node) error {
	for _, folder := range []string{"kubelet", "pod-logs", "volumes"} {
		if err := os.MkdirAll(filepath.Join(l.NodeDir(node), folder), 0o755); err != nil {
			return fmt.Errorf("making a node's disk: %w", err)
		}
	}
	for file, text := range map[string]string{
		"resolv.conf":       "", // pods that use the node's DNS have none: no name outside can be resolved
		"kubelet.yaml":      settings.Kubelet(l.Cluster, node),
		"kube-proxy.yaml":   settings.KubeProxy(l.Cluster, node),
		"containerd.toml":   settings.Containerd(layout.NodeMount+"/containerd", l.cni),
		"cni/pods.conflist": settings.PodNetwork(node),
	} {
		if err := writeFile(filepath.Join(l.NodeDir(node), file), text); err != nil {
			return err
		}
	}
	return nil
}

// startRuntimes brings every node so far that its container runtime answers.
func (l *Local) startRuntimes(ctx context.Context, controlPlane, nodes int) error {
	if nodes == 0 {
		return nil
	}
	if err := l.ensureSeed(ctx); err != nil {
		return err
	}
	var all errgroup.Group
	for _, node := range layout.Nodes(nodes) {
		all.Go(func() error { return l.startRuntime(ctx, controlPlane, node) })
	}
	return all.Wait()
}

func (l *Local) startRuntime(ctx context.Context, controlPlane int, node layout.Node) error {
	if err := l.fillContainerd(node); err != nil {
		return err
	}
	holder, err := l.ensureSandbox(controlPlane, node)
	if err != nil {
		return err
	}
	runtime := &daemon{
		group: node.Name(), name: "containerd", program: "containerd", net: holder, mount: holder,
		arguments: []string{"--config", filepath.Join(l.NodeDir(node), "containerd.toml"), "--log-level", "warn"},
	}
	if err := l.ensure(runtime); err != nil {
		return err
	}
	return waitFor(ctx, patience, "containerd of "+node.Name(), func() (bool, error) {
		return containerdAnswers(holder), runtime.failed()
	})
}

// containerdAnswers looks at a socket in a node's own /run through the process that holds it.
func containerdAnswers(holder int) bool {
	connection, err := net.Dial("unix", fmt.Sprintf("/proc/%d/root%s", holder, layout.ContainerdSocket))
	if err != nil {
		return false
	}
	connection.Close()
	return true
}

// node is the holder of a node's namespaces if it is wired to this control plane, or 0.
func (l *Local) node(controlPlane int, node layout.Node) int {
	holder := l.holder(node.Name())
	wired, _ := os.ReadFile(filepath.Join(l.NodeDir(node), "wired"))
	if holder == 0 || string(wired) != wiring(controlPlane, holder) {
		return 0
	}
	return holder
}

func wiring(controlPlane, holder int) string { return fmt.Sprintf("%d %d", controlPlane, holder) }

// ensureSandbox opens a node's namespaces and connects them. What a half-made node left behind is killed first.
func (l *Local) ensureSandbox(controlPlane int, node layout.Node) (int, error) {
	if holder := l.node(controlPlane, node); holder != 0 {
		return holder, nil
	}
	if err := l.powerOff(controlPlane, node); err != nil {
		return 0, err
	}
	if err := l.trees.Create(l.PodsCgroup(node)); err != nil {
		return 0, err
	}
	group := l.DaemonCgroup(node.Name(), holderName)
	if err := l.trees.Create(group); err != nil {
		return 0, err
	}
	if err := sandbox.Open(sandbox.Holder{Cgroup: group, Disk: l.NodeDir(node)}); err != nil {
		return 0, err
	}
	holder := l.holder(node.Name())
	if err := sandbox.WireNode(controlPlane, holder, node); err != nil {
		return 0, err
	}
	return holder, writeFile(filepath.Join(l.NodeDir(node), "wired"), wiring(controlPlane, holder))
}

// powerOff takes a node off the network and then ends everything on it.
func (l *Local) powerOff(controlPlane int, node layout.Node) error {
	// The link may be gone already: it ends with the node's namespace.
	_ = sandbox.CutCable(controlPlane, node)
	group := l.Cgroup() + "/" + node.Name()
	if err := l.trees.KillAll(group, patience); err != nil {
		return err
	}
	return l.trees.Remove(group)
}

// startNodeDaemons starts what makes a node one of Kubernetes'. fresh says that its kubelet is a new one.
func (l *Local) startNodeDaemons(node layout.Node) (daemons []*daemon, fresh bool, err error) {
	holder := l.holder(node.Name())
	fresh = l.trees.Find(l.DaemonCgroup(node.Name(), "kubelet"), "kube") == 0
	on := func(name, program string, arguments ...string) *daemon {
		return &daemon{group: node.Name(), name: name, program: program, arguments: arguments, net: holder, mount: holder}
	}
	kubelet := append([]string{"kubelet"}, settings.KubeletArguments(l.Cluster, node)...)
	daemons, err = l.ensureAll(
		on("kubelet", l.Component("kube"), kubelet...),
		on("kube-proxy", l.Component("kube"), "kube-proxy", "--config="+filepath.Join(l.NodeDir(node), "kube-proxy.yaml")),
		on("node-agent", filepath.Join(filepath.Dir(l.launcher), "node-agent"), settings.NodeAgent(l.Cluster, node)...),
	)
	return daemons, fresh, err
}

// nodeReady asks for a node's condition and, after a fresh start, for a sign of life that is newer than the start:
// the condition alone may be left from before.
func nodeReady(ctx context.Context, client *kubeapi.Client, node layout.Node, since time.Time) bool {
	var object struct {
		Status struct {
			Conditions []struct {
				Type   string `json:"type"`
				Status string `json:"status"`
			} `json:"conditions"`
		} `json:"status"`
	}
	if client.Get(ctx, "/api/v1/nodes/"+node.Name(), &object) != nil {
		return false
	}
	ready := false
	for _, condition := range object.Status.Conditions {
		ready = ready || condition.Type == "Ready" && condition.Status == "True"
	}
	if !ready || since.IsZero() {
		return ready
	}
	var lease struct {
		Spec struct {
			RenewTime time.Time `json:"renewTime"`
		} `json:"spec"`
	}
	err := client.Get(ctx, "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/"+node.Name(), &lease)
	return err == nil && lease.Spec.RenewTime.After(since)
}

// waitForDNS asks from every node, as a pod would, until cluster DNS answers there.
func (l *Local) waitForDNS(ctx context.Context, nodes int) error {
	var all errgroup.Group
	for _, node := range layout.Nodes(nodes) {
		probe := sandbox.Command(sandbox.Place{Net: l.holder(node.Name())}, l.launcher, ProbeCommand)
		if err := probe.Start(); err != nil {
			return fmt.Errorf("asking cluster DNS: %w", err)
		}
		stop := context.AfterFunc(ctx, func() { _ = probe.Process.Kill() })
		all.Go(func() error {
			defer stop()
			if probe.Wait() != nil && ctx.Err() == nil {
				return fmt.Errorf("cluster DNS does not answer on %s; look at \"kubectl -n kube-system get pods\"", node.Name())
			}
			return ctx.Err()
		})
	}
	return all.Wait()
}

// ProbeCommand is the launcher's hidden subcommand that runs Probe.
const ProbeCommand = "probe-dns"

// Probe asks cluster DNS for the API server's name until it answers.
func Probe() error {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", net.JoinHostPort(layout.DNSServiceIP, "53"))
	}}
	return waitFor(context.Background(), patience, "cluster DNS", func() (bool, error) {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
		return err == nil && len(addresses) == 1 && addresses[0] == layout.APIServiceIP, nil
	})
}

// KillNode is a power failure of one node: its cable is dead, and everything on it too. Its disk stays.
func (l *Local) KillNode(ctx context.Context, node layout.Node) error {
	unlock, err := l.lockExisting(ctx, node)
	if err != nil {
		return err
	}
	defer unlock()
	return l.powerOff(l.controlPlane(), node)
}

// StartNode brings a node back with its disk and waits until it is ready.
func (l *Local) StartNode(ctx context.Context, node layout.Node) error {
	unlock, err := l.lockExisting(ctx, node)
	if err != nil {
		return err
	}
	defer unlock()
	client, err := kubeapi.New(l.Kubeconfig())
	if err != nil {
		return err
	}
	since := time.Now()
	if err := l.startRuntime(ctx, l.controlPlane(), node); err != nil {
		return err
	}
	daemons, fresh, err := l.startNodeDaemons(node)
	if err != nil {
		return err
	}
	if !fresh {
		since = time.Time{}
	}
	return waitFor(ctx, patience, node.Name()+" to be ready", func() (bool, error) {
		return nodeReady(ctx, client, node, since), anyFailed(daemons)
	})
}

func (l *Local) lockExisting(ctx context.Context, node layout.Node) (func(), error) {
	unlock, err := l.lock(ctx)
	if err != nil {
		return nil, err
	}
	known, err := l.requireRecord()
	switch {
	case err != nil:
	case int(node) > known.Nodes:
		err = refusal.New("cluster %q has %d nodes, not a %s", l.Name, known.Nodes, node.Name())
	case l.controlPlane() == 0:
		err = refusal.New("the control plane of cluster %q does not run; run \"up\" to start it again", l.Name)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return unlock, nil
}

// Inside is the network of a running node, for a program that wants to reach pods and services directly. The program
// joins a group of the cluster, so that "down" ends it too and no namespace outlives its cluster.
func (l *Local) Inside(node layout.Node) (sandbox.Place, error) {
	if _, err := l.requireRecord(); err != nil {
		return sandbox.Place{}, err
	}
	holder := l.node(l.controlPlane(), node)
	if holder == 0 {
		return sandbox.Place{}, refusal.New("%s of cluster %q does not run; run \"up\" or \"start-node %d\"", node.Name(), l.Name, int(node))
	}
	group := l.DaemonCgroup(layout.ControlPlane, "inside")
	return sandbox.Place{Cgroup: group, Net: holder}, l.trees.Create(group)
}
