//go:build linux

// Package preflight finds out, before anything is made, whether this machine can run a local cluster.
package preflight

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"tanka.dev/e2e/cluster/internal/refusal"
)

const (
	diskNeeded       = 4 << 30   // bytes free for state: images are unpacked on every node
	memoryNeeded     = 1 << 30   // bytes available for the control plane and one node
	memoryPerNode    = 256 << 20 // and for each further one
	installDebian    = "on Debian or Ubuntu: apt-get install containerd runc containernetworking-plugins nftables iptables iproute2"
	controlPlaneOnly = "on Debian or Ubuntu: apt-get install iproute2"
)

// tool is a program that nodes need; pattern finds its version in the output of its version flag.
type tool struct {
	name, flag string
	pattern    *regexp.Regexp
	least      [3]int
}

var tools = []tool{
	{"containerd", "--version", regexp.MustCompile(`v?(\d+)\.(\d+)\.(\d+)`), [3]int{1, 6, 0}},
	{"runc", "--version", regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)`), [3]int{1, 1, 0}},
	{"nft", "--version", regexp.MustCompile(`v(\d+)\.(\d+)\.(\d+)`), [3]int{1, 0, 1}},
	{name: "ctr"}, {name: "containerd-shim-runc-v2"}, {name: "iptables"},
}

var cniPlugins = []string{"ptp", "host-local", "portmap", "loopback"}

// Result is what was found on the way.
type Result struct{ CNIPlugins string }

// Check refuses with the first thing that is missing. With no nodes only the control plane's needs count.
func Check(state string, nodes int) (Result, error) {
	if os.Geteuid() != 0 {
		return Result{}, refusal.New("a local cluster needs root for its namespaces; run this as root, or set CLUSTER=kind with a Docker engine")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return Result{}, refusal.New("ip is not installed; %s", controlPlaneOnly)
	}
	if err := checkMemory(nodes); err != nil {
		return Result{}, err
	}
	if err := checkDisk(state, nodes); err != nil || nodes == 0 {
		return Result{}, err
	}
	for _, tool := range tools {
		if err := tool.check(); err != nil {
			return Result{}, err
		}
	}
	folder, err := findCNI()
	return Result{CNIPlugins: folder}, err
}

func (t tool) check() error {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return refusal.New("%s is not installed; %s", t.name, installDebian)
	}
	if t.pattern == nil {
		return nil
	}
	output, err := exec.Command(path, t.flag).CombinedOutput()
	if err != nil {
		return refusal.New("%s %s fails (%v); install it again: %s", t.name, t.flag, err, installDebian)
	}
	if found, ok := version(t.pattern, string(output)); ok && older(found, t.least) {
		return refusal.New("%s is version %s, at least %s is needed; install a newer one", t.name, dotted(found), dotted(t.least))
	}
	return nil
}

func version(pattern *regexp.Regexp, text string) ([3]int, bool) {
	var found [3]int
	match := pattern.FindStringSubmatch(text)
	if match == nil {
		return found, false
	}
	for i := range found {
		found[i], _ = strconv.Atoi(match[i+1])
	}
	return found, true
}

func older(found, least [3]int) bool {
	for i := range found {
		if found[i] != least[i] {
			return found[i] < least[i]
		}
	}
	return false
}

func dotted(v [3]int) string { return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]) }

func findCNI() (string, error) {
	for _, folder := range []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"} {
		missing := ""
		for _, plugin := range cniPlugins {
			if _, err := os.Stat(filepath.Join(folder, plugin)); err != nil {
				missing = plugin
			}
		}
		if missing == "" {
			return folder, nil
		}
	}
	return "", refusal.New("the network plug-ins %s are not installed; %s", strings.Join(cniPlugins, ", "), installDebian)
}

func checkDisk(state string, nodes int) error {
	if nodes == 0 {
		return nil
	}
	folder := state
	for {
		var disk syscall.Statfs_t
		err := syscall.Statfs(folder, &disk)
		if err == nil {
			if free := disk.Bavail * uint64(disk.Bsize); free < diskNeeded {
				return refusal.New("%s has %d MiB free, %d are needed; free some space or set TANKA_STATE to a larger disk", folder, free>>20, diskNeeded>>20)
			}
			return nil
		}
		if folder == "/" {
			return refusal.New("the free space of %s cannot be read (%v); set TANKA_STATE to another folder", state, err)
		}
		folder = filepath.Dir(folder)
	}
}

func checkMemory(nodes int) error {
	file, err := os.Open("/proc/meminfo")
	if err != nil {
		return refusal.New("/proc is not mounted; a local cluster needs it")
	}
	defer file.Close()
	needed := memoryNeeded
	if nodes > 1 {
		needed += (nodes - 1) * memoryPerNode
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 || fields[0] != "MemAvailable:" {
			continue
		}
		if available, err := strconv.Atoi(fields[1]); err == nil && available<<10 < needed {
			return refusal.New("%d MiB of memory are available, %d are needed; close something or ask for fewer nodes", available>>10, needed>>20)
		}
	}
	return nil
}
