package addons

import (
	"strings"
	"testing"
)

func TestEveryAddOnCanBeApplied(t *testing.T) {
	seen := map[string]bool{}
	for _, document := range documents(3) {
		path, err := objectPath([]byte(document))
		if err != nil || seen[path] {
			t.Errorf("%s: %v", path, err)
		}
		seen[path] = true
		if strings.Contains(document, "${") {
			t.Errorf("%s has a gap that nothing fills", path)
		}
	}
}

func TestDNSHasASecondReplicaOnlyWhereItCanRun(t *testing.T) {
	for nodes, want := range map[int]string{1: "replicas: 1", 2: "replicas: 2", 3: "replicas: 2"} {
		if !strings.Contains(strings.Join(documents(nodes), "\n"), want+"\n") {
			t.Errorf("%d nodes lack %q", nodes, want)
		}
	}
}
