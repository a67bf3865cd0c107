//go:build linux

package sandbox

import (
	"strings"
	"testing"

	"tanka.dev/e2e/cluster/internal/layout"
)

func TestNoNodeHasAWayOut(t *testing.T) {
	lines := controlPlaneLinks()
	for _, node := range layout.Nodes(layout.MaxNodes) {
		lines = append(lines, cable(node, 1)...)
		lines = append(lines, nodeLinks(node)...)
	}
	for _, line := range lines {
		if strings.Contains(line, "default") || strings.Contains(line, "0.0.0.0/0") {
			t.Errorf("%q leads out of the cluster", line)
		}
	}
}

func TestNodesKnowTheWayToEachOther(t *testing.T) {
	text := strings.Join(nodeLinks(2), "\n")
	for _, want := range []string{"addr add 10.90.0.12/24 dev eth0", "route add 10.91.1.0/24 via 10.90.0.11", "route add 10.91.3.0/24 via 10.90.0.13", "route add 10.92.0.0/16 via 10.90.0.1"} {
		if !strings.Contains(text, want) {
			t.Errorf("node 2 lacks %q", want)
		}
	}
	if strings.Contains(text, "10.91.2.0/24") {
		t.Error("node 2 sends its own pods' packets away")
	}
}
