//go:build linux

package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"tanka.dev/e2e/cluster/internal/addons"
	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/kubeapi"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/pki"
	"tanka.dev/e2e/cluster/internal/preflight"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/settings"
)

// patience is how long any part may take to become ready. On two busy cores it takes a few seconds.
const patience = 2 * time.Minute

// startAttempts bounds how often parts that died meanwhile are started again.
const startAttempts = 3

// Up brings the cluster to what the options say. It may be called in any state, again and again.
func (l *Local) Up(ctx context.Context, options Options) error {
	found, err := preflight.Check(l.State, wantedNodes(options, record{}, false))
	if err != nil {
		return err
	}
	unlock, err := l.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	steps := newSteps()
	wanted, err := l.decide(options, found.CNIPlugins)
	if err != nil {
		return err
	}
	if err := l.prepare(&wanted); err != nil {
		return err
	}
	steps.done("certificates and settings")
	if err := l.startAll(ctx, wanted, steps); err != nil {
		return err
	}
	if l.started.Load() == 0 {
		return nil // nothing was booted, so the times of the last boot stand
	}
	return writeJSON(l.Path("boot.json"), steps)
}

// startAll starts what is missing. A part that dies while others are started around it, or whose death was not seen
// yet, is taken up by the next attempt.
func (l *Local) startAll(ctx context.Context, wanted record, steps *steps) error {
	for attempt := 1; ; attempt++ {
		err := waitFor(ctx, patience, "killed processes to end", func() (bool, error) { return !cgroup.Dying(l.Cgroup()), nil })
		if err == nil {
			err = l.start(ctx, &wanted, steps)
		}
		dead := l.dead(wanted, nil)
		switch {
		case err == nil && dead == 0:
			return nil
		case ctx.Err() != nil || refusal.ExitCode(err) == 2 || dead == 0:
			return err
		case attempt == startAttempts && err == nil:
			return fmt.Errorf("parts of the cluster do not stay up; look at the logs in %s", l.Path("logs"))
		case attempt == startAttempts:
			return err
		}
		fmt.Fprintf(os.Stderr, "%d parts do not run; starting them again\n", dead)
	}
}

func wantedNodes(options Options, known record, exists bool) int {
	switch {
	case options.ControlPlaneOnly:
		return 0
	case options.Nodes > 0:
		return options.Nodes
	case exists:
		return known.Nodes
	default:
		return 1
	}
}

// decide compares what is wanted with what the cluster was started as.
func (l *Local) decide(options Options, cni string) (record, error) {
	known, exists, err := l.loadRecord()
	if err != nil {
		return record{}, err
	}
	wanted := record{
		Nodes: wantedNodes(options, known, exists), Port: options.Port, Components: l.Components, CNI: cni,
		ControllerManager: !options.ControlPlaneOnly || options.ControllerManager,
	}
	if exists {
		if wanted.Nodes < known.Nodes || (known.Nodes == 0 && wanted.Nodes > 0) {
			return record{}, refusal.New("cluster %q was started with %d nodes, not %d; take it down first", l.Name, known.Nodes, wanted.Nodes)
		}
		if wanted.Port == 0 {
			wanted.Port = known.Port
		} else if wanted.Port != known.Port && l.controlPlane() != 0 {
			return record{}, refusal.New("cluster %q listens on port %d, not %d; take it down first", l.Name, known.Port, wanted.Port)
		}
		// What runs goes on with the binaries that it was started with.
		if len(l.trees.Folders(l.Cgroup())) > 0 {
			wanted.Components = known.Components
		}
	}
	if _, err := os.Stat(wanted.Components); err != nil {
		return record{}, refusal.New("the components are not built (%s is missing); run e2e/cluster/build", wanted.Components)
	}
	l.Components, l.cni = wanted.Components, cni
	return wanted, l.checkPort(options.Port)
}

// checkPort refuses a port that was asked for and is taken, before anything is made.
func (l *Local) checkPort(port int) error {
	if port == 0 || l.gatewayRuns() {
		return nil
	}
	listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return refusal.New("port %d on 127.0.0.1 is in use; set API_PORT to a free one, or leave it unset", port)
	}
	listener.Close()
	return nil
}

// prepare writes everything that daemons read, and opens the way in from the host.
func (l *Local) prepare(wanted *record) error {
	if err := os.MkdirAll(l.Dir(), 0o755); err != nil {
		return refusal.New("%s cannot be written (%v); set TANKA_STATE to a folder that can", l.State, err)
	}
	if err := l.saveRecord(*wanted); err != nil {
		return err
	}
	if err := pki.Ensure(l.Path("pki")); err != nil {
		return err
	}
	users := []string{"controller-manager", "scheduler", "kube-proxy", "node-agent"}
	for _, node := range layout.Nodes(wanted.Nodes) {
		users = append(users, node.Name())
	}
	for _, user := range users {
		if err := l.writeKubeconfig(l.Path("kubeconfigs", user), user, layout.APIServerURL); err != nil {
			return err
		}
	}
	for _, node := range layout.Nodes(wanted.Nodes) {
		if err := l.prepareNode(node); err != nil {
			return err
		}
	}
	return l.linkKubectl()
}

func (l *Local) writeKubeconfig(path, user, server string) error {
	var parts [3][]byte
	for i, file := range []string{"ca.crt", user + ".crt", user + ".key"} {
		content, err := os.ReadFile(l.Path("pki", file))
		if err != nil {
			return fmt.Errorf("reading certificates: %w", err)
		}
		parts[i] = content
	}
	return writeFile(path, settings.Kubeconfig(l.Name, server, parts[0], parts[1], parts[2]))
}

func (l *Local) linkKubectl() error {
	if err := os.MkdirAll(filepath.Dir(l.Kubectl()), 0o755); err != nil {
		return fmt.Errorf("making the folder for kubectl: %w", err)
	}
	partial := l.Kubectl() + "." + l.Name
	_ = os.Remove(partial)
	if err := os.Symlink(l.Component("kube"), partial); err != nil {
		return fmt.Errorf("linking kubectl: %w", err)
	}
	if err := os.Rename(partial, l.Kubectl()); err != nil {
		return fmt.Errorf("linking kubectl: %w", err)
	}
	return nil
}

// start runs the control plane and the nodes side by side as far as they do not need each other.
func (l *Local) start(ctx context.Context, wanted *record, steps *steps) error {
	holder, err := l.ensureControlPlane()
	if err != nil {
		return err
	}
	if err := l.ensureGateway(holder, wanted); err != nil {
		return err
	}
	servers, err := l.startServers(holder, *wanted)
	if err != nil {
		return err
	}
	var runtimes errgroup.Group
	defer runtimes.Wait() //nolint:errcheck // whatever else fails, nothing of this attempt works on beside the next
	runtimes.Go(func() error { return l.startRuntimes(ctx, holder, wanted.Nodes) })
	client, err := kubeapi.New(l.Kubeconfig())
	if err != nil {
		return err
	}
	err = waitFor(ctx, patience, "the API server", func() (bool, error) {
		return client.Ready(ctx), anyFailed(servers)
	})
	if err != nil {
		return err
	}
	steps.done("API server ready")
	controllers, err := l.startControllers(holder, *wanted)
	if err != nil {
		return err
	}
	if err := runtimes.Wait(); err != nil {
		return err
	}
	if wanted.Nodes == 0 {
		steps.done("control plane started")
		return nil
	}
	steps.done("container runtimes ready")
	return l.startNodes(ctx, client, *wanted, controllers, steps)
}

func (l *Local) startNodes(ctx context.Context, client *kubeapi.Client, wanted record, watched []*daemon, steps *steps) error {
	var started []layout.Node
	since := time.Now()
	for _, node := range layout.Nodes(wanted.Nodes) {
		daemons, fresh, err := l.startNodeDaemons(node)
		if err != nil {
			return err
		}
		watched = append(watched, daemons...)
		if fresh {
			started = append(started, node)
		}
	}
	if err := l.applyAddons(ctx, client, wanted.Nodes); err != nil {
		return err
	}
	steps.done("add-ons applied")
	for _, node := range layout.Nodes(wanted.Nodes) {
		fresh := time.Time{}
		for _, other := range started {
			if other == node {
				fresh = since
			}
		}
		err := waitFor(ctx, patience, node.Name()+" to be ready", func() (bool, error) {
			return nodeReady(ctx, client, node, fresh), anyFailed(watched)
		})
		if err != nil {
			return err
		}
	}
	steps.done("nodes ready")
	if err := l.waitForDNS(ctx, wanted.Nodes); err != nil {
		return err
	}
	steps.done("cluster DNS answers")
	return nil
}

// applyAddons tries again while the API server is still making its own first roles and namespaces.
func (l *Local) applyAddons(ctx context.Context, client *kubeapi.Client, nodes int) error {
	var last error
	err := waitFor(ctx, 30*time.Second, "the add-ons", func() (bool, error) {
		last = addons.Apply(ctx, client, nodes)
		return last == nil, nil
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// listen opens the API server's port on the host. A port that was only remembered may be another one next time.
func (l *Local) listen(wanted *record) (*net.TCPListener, error) {
	known, _, err := l.loadRecord()
	if err != nil {
		return nil, err
	}
	asked := strings.TrimSpace(os.Getenv("API_PORT")) != ""
	listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(wanted.Port)))
	if err != nil && !asked && known.Port != 0 {
		listener, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return nil, refusal.New("port %d on 127.0.0.1 is in use; set API_PORT to a free one, or leave it unset", wanted.Port)
	}
	wanted.Port = listener.Addr().(*net.TCPAddr).Port
	return listener.(*net.TCPListener), nil
}
