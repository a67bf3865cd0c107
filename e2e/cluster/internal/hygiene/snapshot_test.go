//go:build linux

package hygiene

import (
	"strings"
	"testing"
)

func TestDifferences(t *testing.T) {
	before := Snapshot{"link": {"lo", "eth0"}, "setting": {"a = 1"}}
	after := Snapshot{"link": {"lo", "node1"}, "setting": {"a = 2"}}
	got := strings.Join(Differences(before, after), "; ")
	if got != "missing link: eth0; missing setting: a = 1; new link: node1; new setting: a = 2" {
		t.Error(got)
	}
	if got := Differences(before, before); len(got) != 0 {
		t.Error(got)
	}
}
