package layout

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tanka.dev/e2e/cluster/internal/refusal"
)

func TestNamesThatAreRefused(t *testing.T) {
	for _, name := range []string{"", "No", "-a", "a-", "a_b", "a/b", strings.Repeat("a", 33)} {
		if _, err := New(name, t.TempDir(), t.TempDir(), "key"); refusal.ExitCode(err) != 2 {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func TestFoldersThatANodeHidesAreRefused(t *testing.T) {
	for _, folder := range []string{"/run", "/run/x", "/var/log/x", "/proc/x"} {
		if _, err := New("a", folder, t.TempDir(), "key"); refusal.ExitCode(err) != 2 {
			t.Errorf("folder %q: %v", folder, err)
		}
	}
}

func TestCgroupDependsOnNameAndFolderOnly(t *testing.T) {
	state, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(state, link); err != nil {
		t.Fatal(err)
	}
	make := func(name, state string) Cluster {
		c, err := New(name, state, t.TempDir(), "key")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	one, same, other, elsewhere := make("a", state), make("a", link), make("a-b", state), make("a", t.TempDir())
	if one.Cgroup() != same.Cgroup() {
		t.Error("the way to a folder changes the group")
	}
	if one.Cgroup() == other.Cgroup() || one.Cgroup() == elsewhere.Cgroup() {
		t.Error("two clusters share a group")
	}
	if one.Foreign(other.Cgroup()) || !one.Foreign(elsewhere.Cgroup()+"/node-1") || one.Foreign("/user.slice") {
		t.Error("clusters of this checkout, of others and none at all are confused")
	}
}

func TestNodesHaveRangesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, node := range Nodes(MaxNodes) {
		for _, text := range []string{node.Name(), node.IP(), node.PodRange(), node.Link()} {
			if seen[text] {
				t.Errorf("%s is given twice", text)
			}
			seen[text] = true
		}
		if len(node.Link()) > 15 {
			t.Errorf("link name %s is too long for the kernel", node.Link())
		}
		if parsed, err := ParseNode(node.Name()); err != nil || parsed != node {
			t.Errorf("%s is read as %v, %v", node.Name(), parsed, err)
		}
	}
	for _, bad := range []string{"0", "4", "x", "", "node-"} {
		if _, err := ParseNode(bad); refusal.ExitCode(err) != 2 {
			t.Errorf("node %q: %v", bad, err)
		}
	}
}
