package layout

import (
	"fmt"
	"strconv"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// Every cluster uses the same ranges: they exist only inside network namespaces of its own, which have no way to
// each other or to the host, so they cannot meet.
const (
	ControlPlaneIP = "10.90.0.1"
	NodeRange      = "10.90.0.0/24"
	PodRange       = "10.91.0.0/16"
	ServiceRange   = "10.92.0.0/16"
	APIServiceIP   = "10.92.0.1"
	DNSServiceIP   = "10.92.0.10"
	APIServerPort  = 6443
	// APIServerURL is the API server's address inside the cluster's own namespaces.
	APIServerURL = "https://10.90.0.1:6443"
)

// ControlPlane is the group name of the control plane's daemons and namespace.
const ControlPlane = "control-plane"

// Paths that a node sees. Each node has a /run of its own, with its disk mounted on /run/node: short enough for
// UNIX sockets wherever the checkout lies.
const (
	NodeMount        = "/run/node"
	ContainerdSocket = "/run/containerd/containerd.sock"
)

// Node is a node by its number, from 1.
type Node int

// Nodes is the first n nodes.
func Nodes(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = Node(i + 1)
	}
	return nodes
}

// ParseNode reads a node's number, or its name.
func ParseNode(text string) (Node, error) {
	number, err := strconv.Atoi(trimNodePrefix(text))
	if err != nil || number < 1 || number > MaxNodes {
		return 0, refusal.New("%q is not a node; give a number from 1 to %d", text, MaxNodes)
	}
	return Node(number), nil
}

func trimNodePrefix(text string) string {
	const prefix = "node-"
	if len(text) > len(prefix) && text[:len(prefix)] == prefix {
		return text[len(prefix):]
	}
	return text
}

// Name is what Kubernetes calls the node.
func (n Node) Name() string { return fmt.Sprintf("node-%d", int(n)) }

// IP is the node's address on the bridge.
func (n Node) IP() string { return fmt.Sprintf("10.90.0.%d", 10+int(n)) }

// PodRange is the node's part of the pods' range.
func (n Node) PodRange() string { return fmt.Sprintf("10.91.%d.0/24", int(n)) }

// Link is the bridge's end of the node's cable, inside the control plane's namespace.
func (n Node) Link() string { return fmt.Sprintf("node%d", int(n)) }
