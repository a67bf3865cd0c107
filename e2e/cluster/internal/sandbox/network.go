//go:build linux

package sandbox

import (
	"fmt"
	"strings"

	"tanka.dev/e2e/cluster/internal/layout"
)

// WireControlPlane sets up the bridge and the addresses of the control plane's namespace.
func WireControlPlane(holder int) error {
	return batch(holder, controlPlaneLinks())
}

func controlPlaneLinks() []string {
	return []string{
		"link set lo up",
		"link add br0 type bridge",
		"addr add " + layout.ControlPlaneIP + "/24 dev br0",
		"link set br0 up",
		// A process on a node needs some route to a service address before kube-proxy rewrites the packet. It
		// points here, and ends here at once, so that a packet from before the first rule is refused, not lost.
		"route add unreachable " + layout.ServiceRange,
	}
}

// WireNode lays a cable from the bridge to a node and sets up the routes at both ends. There is no default route:
// nothing that runs on a node can send a packet anywhere else.
func WireNode(controlPlane, holder int, node layout.Node) error {
	if err := batch(controlPlane, cable(node, holder)); err != nil {
		return err
	}
	return batch(holder, nodeLinks(node))
}

func cable(node layout.Node, holder int) []string {
	return []string{
		fmt.Sprintf("link add %s type veth peer name eth0 netns %d", node.Link(), holder),
		fmt.Sprintf("link set %s master br0 up", node.Link()),
		fmt.Sprintf("route replace %s via %s", node.PodRange(), node.IP()),
	}
}

func nodeLinks(node layout.Node) []string {
	lines := []string{
		"link set lo up",
		fmt.Sprintf("addr add %s/24 dev eth0", node.IP()),
		"link set eth0 up",
		fmt.Sprintf("route add %s via %s", layout.ServiceRange, layout.ControlPlaneIP),
	}
	for _, other := range layout.Nodes(layout.MaxNodes) {
		if other != node {
			lines = append(lines, fmt.Sprintf("route add %s via %s", other.PodRange(), other.IP()))
		}
	}
	return lines
}

// CutCable takes a node off the network, as pulling its plug does.
func CutCable(controlPlane int, node layout.Node) error {
	return batch(controlPlane, []string{"link del " + node.Link()})
}

func batch(holder int, lines []string) error {
	command := Command(Place{Net: holder}, "ip", "-batch", "-")
	command.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("setting up links: %s: %w", strings.TrimSpace(string(output)), err)
	}
	return nil
}
