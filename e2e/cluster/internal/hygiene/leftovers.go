//go:build linux

package hygiene

import (
	"fmt"
	"os"
	"strings"

	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/layout"
)

// Leftovers lists what belongs to one cluster and should be gone after "down".
func Leftovers(c layout.Cluster) ([]string, error) {
	trees, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	var found []string
	ours := map[string]bool{}
	for _, pid := range cgroup.Members(c.Cgroup()) {
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		found = append(found, fmt.Sprintf("process: %d %s", pid, strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))))
		if namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			ours[namespace] = true
		}
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err == nil {
		delete(ours, own)
	}
	for namespace := range ours {
		found = append(found, "network namespace: "+namespace)
	}
	for _, folder := range trees.Folders(c.Cgroup()) {
		found = append(found, "cgroup: "+folder)
	}
	table, err := mounts()
	if err != nil {
		return nil, err
	}
	for _, mount := range table {
		if strings.Contains(mount, c.Dir()+"/") {
			found = append(found, "mount: "+mount)
		}
	}
	for kind, command := range map[string][]string{
		"link": {"ip", "-oneline", "link"}, "firewall rule": {"nft", "list", "tables"},
	} {
		all, err := lines(command)
		if err != nil {
			return nil, err
		}
		for _, line := range all {
			if isOurs(line) {
				found = append(found, kind+": "+line)
			}
		}
	}
	if _, err := os.Stat(c.Dir()); err == nil {
		found = append(found, "folder: "+c.Dir())
	}
	return found, nil
}

// isOurs recognizes the names of links and tables that exist in a cluster's namespaces only. None can be on the
// host unless isolation is broken.
func isOurs(line string) bool {
	for _, name := range []string{" node1@", " node2@", " node3@", "table ip kube-proxy", "table ip tanka_policy"} {
		if strings.Contains(line, name) {
			return true
		}
	}
	return false
}
