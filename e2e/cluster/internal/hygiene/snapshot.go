//go:build linux

// Package hygiene finds what a cluster left on the machine.
package hygiene

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/refusal"
)

// Snapshot is what a cluster could change on the machine, by kind, one line for each thing.
type Snapshot map[string][]string

// ownPrograms are the programs whose processes are compared; others come and go for reasons of their own.
var ownPrograms = []string{
	"tanka-cluster", "kube", "node-agent", "probe", "coredns", "metrics-server", "pause", "program",
	"containerd", "containerd-shim-runc-v2", "runc", "ctr",
}

// settings of the whole machine that Kubernetes likes to change.
var settings = []string{
	"kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom", "kernel/keys/root_maxkeys",
	"kernel/keys/root_maxbytes", "net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/all/rp_filter",
	"net/netfilter/nf_conntrack_max", "net/netfilter/nf_conntrack_tcp_timeout_established",
}

// Take looks at the machine.
func Take() (Snapshot, error) {
	trees, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	s := Snapshot{
		"process":           processes(),
		"network namespace": networkNamespaces(),
		"cgroup":            clusterGroups(trees),
		"setting":           readSettings(),
		"file":              list("/run/netns/*", "/run/containerd/*", "/etc/cni/net.d/*", "/var/lib/kubelet/*", "/var/lib/cni/*", "/var/log/pods/*", "/var/log/containers/*"),
	}
	if s["mount"], err = mounts(); err != nil {
		return nil, err
	}
	for kind, command := range map[string][]string{
		"link":          {"ip", "-oneline", "link"},
		"address":       {"ip", "-oneline", "address"},
		"route":         {"ip", "route", "show", "table", "all"},
		"firewall rule": {"nft", "list", "ruleset"},
	} {
		if s[kind], err = lines(command); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Save writes a snapshot to a file.
func (s Snapshot) Save(path string) error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding a snapshot: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return refusal.New("%s cannot be written (%v); choose another file", path, err)
	}
	return nil
}

// Load reads a snapshot from a file.
func Load(path string) (Snapshot, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refusal.New("%s cannot be read (%v); make it with \"snapshot\" before the cluster starts", path, err)
	}
	var s Snapshot
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, refusal.New("%s is not a snapshot (%v); make it again with \"snapshot\"", path, err)
	}
	return s, nil
}

// Differences lists what is in one snapshot and not in the other.
func Differences(before, after Snapshot) []string {
	var differences []string
	for kind := range after {
		for _, line := range after[kind] {
			if !slices.Contains(before[kind], line) {
				differences = append(differences, "new "+kind+": "+line)
			}
		}
	}
	for kind := range before {
		for _, line := range before[kind] {
			if !slices.Contains(after[kind], line) {
				differences = append(differences, "missing "+kind+": "+line)
			}
		}
	}
	sort.Strings(differences)
	return differences
}

// processes names our programs' processes without their pids, and all others only if they are in a cluster's group.
func processes() []string {
	var found []string
	for _, folder := range list("/proc/[0-9]*") {
		executable, err := os.Readlink(folder + "/exe")
		if err != nil {
			continue
		}
		program := filepath.Base(strings.TrimSuffix(executable, " (deleted)"))
		if slices.Contains(ownPrograms, program) && folder != fmt.Sprintf("/proc/%d", os.Getpid()) {
			command, _ := os.ReadFile(folder + "/cmdline")
			found = append(found, filepath.Base(folder)+" "+strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found
}

func networkNamespaces() []string {
	seen := map[string]bool{}
	for _, link := range list("/proc/[0-9]*/ns/net") {
		if target, err := os.Readlink(link); err == nil {
			seen[target] = true
		}
	}
	var found []string
	for namespace := range seen {
		found = append(found, namespace)
	}
	sort.Strings(found)
	return found
}

func clusterGroups(trees cgroup.Hierarchies) []string {
	var found []string
	for _, tree := range append([]string{trees.Tracking}, trees.V1...) {
		found = append(found, list(tree+"/tanka-*", tree+"/kubepods*", tree+"/k8s.io*")...)
	}
	return found
}

// mounts are the machine's mounts without their numbers, which change by themselves.
func mounts() ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 6 {
			found = append(found, strings.Join(fields[3:], " "))
		}
	}
	return found, nil
}

func readSettings() []string {
	var found []string
	for _, setting := range settings {
		if value, err := os.ReadFile("/proc/sys/" + setting); err == nil {
			found = append(found, setting+" = "+strings.TrimSpace(string(value)))
		}
	}
	return found
}

func list(patterns ...string) []string {
	var found []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // the only error is a bad pattern
		found = append(found, matches...)
	}
	return found
}

func lines(command []string) ([]string, error) {
	output, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return nil, refusal.New("%s fails (%v); it is needed to look at the machine, install it", strings.Join(command, " "), err)
	}
	var found []string
	for line := range strings.Lines(string(output)) {
		found = append(found, strings.TrimSpace(line))
	}
	return found, nil
}
