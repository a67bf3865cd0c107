//go:build linux

// Package hygiene finds what a cluster left on the machine.
package hygiene

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/gateway"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/refusal"
	"tanka.dev/e2e/cluster/internal/sandbox"
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

// Take looks at the machine. What clusters of other checkouts have there is left out.
func Take(c layout.Cluster) (Snapshot, error) {
	trees, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	s := Snapshot{
		"process":           processes(c),
		"network namespace": networkNamespaces(c),
		"cgroup":            clusterGroups(c, trees),
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

// pids are the folders in /proc of processes that are not a foreign cluster's.
func pids(c layout.Cluster) []string {
	return slices.DeleteFunc(list("/proc/[0-9]*"), func(folder string) bool {
		text, err := os.ReadFile(folder + "/cgroup")
		for line := range strings.Lines(string(text)) {
			if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 && c.Foreign(parts[2]) {
				return true
			}
		}
		return err != nil
	})
}

// processes are those of the programs that clusters run; others come and go for reasons of their own.
func processes(c layout.Cluster) []string {
	var found []string
	for _, folder := range pids(c) {
		executable, err := os.Readlink(folder + "/exe")
		if err != nil {
			continue
		}
		program := filepath.Base(strings.TrimSuffix(executable, " (deleted)"))
		command, _ := os.ReadFile(folder + "/cmdline")
		words := strings.Split(strings.TrimRight(string(command), "\x00"), "\x00")
		if slices.Contains(ownPrograms, program) && !isCommand(program, words) {
			found = append(found, filepath.Base(folder)+" "+strings.Join(words, " "))
		}
	}
	return found
}

// isCommand tells what somebody runs at a prompt, such as this program, from what works inside a cluster.
func isCommand(program string, words []string) bool {
	if program == "kube" {
		return filepath.Base(words[0]) == "kubectl" || len(words) > 1 && words[1] == "kubectl"
	}
	hidden := []string{sandbox.EnterCommand, sandbox.HoldCommand, gateway.Command}
	return program == "tanka-cluster" && (len(words) < 2 || !slices.Contains(hidden, words[1]))
}

func networkNamespaces(c layout.Cluster) []string {
	seen := map[string]bool{}
	for _, folder := range pids(c) {
		if target, err := os.Readlink(folder + "/ns/net"); err == nil {
			seen[target] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func clusterGroups(c layout.Cluster, trees cgroup.Hierarchies) []string {
	var found []string
	for _, tree := range append([]string{trees.Tracking}, trees.V1...) {
		found = append(found, list(tree+"/tanka-*", tree+"/kubepods*", tree+"/k8s.io*")...)
	}
	return slices.DeleteFunc(found, func(path string) bool { return c.Foreign(filepath.Base(path)) })
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
