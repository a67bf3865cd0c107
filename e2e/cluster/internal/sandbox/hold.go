//go:build linux

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"tanka.dev/e2e/cluster/internal/cgroup"
	"tanka.dev/e2e/cluster/internal/layout"
)

// HoldCommand is the launcher's hidden subcommand that runs Hold.
const HoldCommand = "hold-sandbox"

// Holder describes a sandbox to open.
type Holder struct {
	Cgroup string
	Disk   string // a node's own folder; "" for the control plane, which needs no mounts of its own
}

// Open starts a process in new namespaces and waits until they are ready for use.
func Open(holder Holder) error {
	encoded, err := json.Marshal(holder)
	if err != nil {
		return fmt.Errorf("describing a sandbox: %w", err)
	}
	ready, err := os.CreateTemp("", "sandbox-*.log")
	if err != nil {
		return fmt.Errorf("making a file for messages: %w", err)
	}
	defer os.Remove(ready.Name())
	defer ready.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer reader.Close()
	process := exec.Command("/proc/self/exe", HoldCommand, string(encoded))
	process.Dir, process.Stderr, process.Stdout = "/", ready, writer
	flags := uintptr(unix.CLONE_NEWNET)
	if holder.Disk != "" {
		flags |= unix.CLONE_NEWNS
	}
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: flags}
	err = process.Start()
	writer.Close()
	if err != nil {
		return fmt.Errorf("making namespaces (are we root with CAP_SYS_ADMIN?): %w", err)
	}
	go process.Wait() //nolint:errcheck // only so that no zombie stays; the holder outlives us
	if answer, _ := io.ReadAll(reader); string(answer) != "ready" {
		message, _ := os.ReadFile(ready.Name())
		return fmt.Errorf("a sandbox did not open: %s", strings.TrimSpace(string(message)))
	}
	return nil
}

// Hold prepares the namespaces that this process was born into and then keeps them open until it is killed.
func Hold(arguments []string) error {
	var holder Holder
	if len(arguments) != 1 {
		return fmt.Errorf("%s needs a description", HoldCommand)
	}
	if err := json.Unmarshal([]byte(arguments[0]), &holder); err != nil {
		return fmt.Errorf("reading the description: %w", err)
	}
	trees, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if err := trees.Join(holder.Cgroup); err != nil {
		return err
	}
	if holder.Disk != "" {
		if err := mountNode(holder.Disk); err != nil {
			return err
		}
	}
	if err := setNetworkSettings(); err != nil {
		return err
	}
	fmt.Print("ready")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", os.DevNull, err)
	}
	for _, stream := range []int{1, 2} { // closes the pipe: the launcher reads to its end
		if err := unix.Dup2(int(null.Fd()), stream); err != nil {
			return fmt.Errorf("letting go of the launcher's streams: %w", err)
		}
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	return nil
}

// setNetworkSettings writes settings of the new network namespace; /proc/sys/net shows that of the caller.
func setNetworkSettings() error {
	for name, value := range map[string]string{
		"ipv4/ip_forward":              "1",
		"ipv4/conf/all/rp_filter":      "0",
		"ipv4/conf/default/rp_filter":  "0",
		"ipv4/icmp_ratelimit":          "0", // "unreachable" must come for every packet, or clients hang
		"ipv6/conf/all/disable_ipv6":   "1",
		"ipv6/conf/lo/disable_ipv6":    "0", // programs listen on ::1
		"ipv4/ip_local_port_range":     "32768 60999",
		"netfilter/nf_conntrack_acct":  "0",
		"ipv4/conf/all/send_redirects": "0", // node 1 would tell a peer to bypass the bridge's router
	} {
		err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("setting net/%s: %w", name, err)
		}
	}
	return nil
}

// protectedSettings are settings of the whole machine that a kubelet writes unless they already have these values.
// A node sees files with the wanted values in their place, so nothing outside changes.
var protectedSettings = map[string]string{
	"kernel/panic": "10", "kernel/panic_on_oops": "1", "vm/overcommit_memory": "1", "vm/panic_on_oom": "0",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// mountNode gives a node its own /run and /var/log, with its disk on /run/node, visible to nobody else.
func mountNode(disk string) error {
	// First of all: nothing below may reach the machine's own mount table.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	source, err := os.Open(disk)
	if err != nil {
		return fmt.Errorf("opening the node's disk: %w", err)
	}
	defer source.Close()
	for _, folder := range []string{"/run", "/var/log"} {
		if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mounting a tmpfs on %s: %w", folder, err)
		}
	}
	binds := map[string]string{"": layout.NodeMount, "pod-logs": "/var/log/pods"}
	for from, to := range binds {
		if err := os.MkdirAll(to, 0o755); err != nil {
			return fmt.Errorf("making %s: %w", to, err)
		}
		path := filepath.Join(fmt.Sprintf("/proc/self/fd/%d", source.Fd()), from)
		if err := unix.Mount(path, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", to, err)
		}
	}
	if err := os.MkdirAll("/run/protected", 0o755); err != nil {
		return fmt.Errorf("making /run/protected: %w", err)
	}
	for setting, value := range protectedSettings {
		if err := protect(setting, value); err != nil {
			return err
		}
	}
	// Volumes that the kubelet mounts must be visible to containers that ask for it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("making mounts shared: %w", err)
	}
	return nil
}

func protect(setting, value string) error {
	path := "/proc/sys/" + setting
	if _, err := os.Stat(path); err != nil {
		return nil // this kernel does not have it, so nobody will write it
	}
	cover := "/run/protected/" + strings.ReplaceAll(setting, "/", ".")
	if err := os.WriteFile(cover, []byte(value+"\n"), 0o644); err != nil {
		return fmt.Errorf("writing %s: %w", cover, err)
	}
	if err := unix.Mount(cover, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("covering %s: %w", path, err)
	}
	return nil
}
