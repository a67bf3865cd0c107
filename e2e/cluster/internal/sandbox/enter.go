//go:build linux

// Package sandbox makes and enters the network and mount namespaces that a cluster lives in. No namespace has a
// name or a file: each is held open by the processes inside, so that killing them is all it takes to remove its
// links, rules and mounts from the machine.
package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"tanka.dev/e2e/cluster/internal/cgroup"
)

// EnterCommand is the launcher's hidden subcommand that runs Enter.
const EnterCommand = "enter-sandbox"

// Place says where a program is to run.
type Place struct {
	Cgroup string // group to join first; "" to stay
	Net    int    // process whose network namespace to enter; 0 to stay
	Mount  int    // process whose mount namespace to enter; 0 to stay
}

// Command prepares a program to run in a place. The launcher calls itself first, so that the program is in its
// group from its first instruction on, even if the launcher dies in the middle.
func Command(place Place, program string, arguments ...string) *exec.Cmd {
	encoded, err := json.Marshal(place)
	if err != nil {
		panic(err) // three plain fields always encode
	}
	return exec.Command("/proc/self/exe", append([]string{EnterCommand, string(encoded), program}, arguments...)...)
}

// Enter moves this process to a place and becomes the program. It returns only on failure.
func Enter(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("%s needs a place and a program", EnterCommand)
	}
	var place Place
	if err := json.Unmarshal([]byte(arguments[0]), &place); err != nil {
		return fmt.Errorf("reading the place: %w", err)
	}
	runtime.LockOSThread() // namespaces belong to threads; exec keeps those of the thread that calls it
	if place.Cgroup != "" {
		trees, err := cgroup.Detect()
		if err != nil {
			return err
		}
		if err := trees.Join(place.Cgroup); err != nil {
			return err
		}
	}
	program, err := exec.LookPath(arguments[1])
	if err != nil {
		return fmt.Errorf("finding %s: %w", arguments[1], err)
	}
	if err := switchNamespaces(place); err != nil {
		return err
	}
	if err := syscall.Exec(program, arguments[1:], os.Environ()); err != nil {
		return fmt.Errorf("running %s: %w", program, err)
	}
	return nil
}

// switchNamespaces opens both namespaces before it enters either: /proc may look different inside.
func switchNamespaces(place Place) error {
	type target struct {
		process int
		name    string
		kind    int
	}
	var files []*os.File
	targets := []target{{place.Net, "net", unix.CLONE_NEWNET}, {place.Mount, "mnt", unix.CLONE_NEWNS}}
	for _, t := range targets {
		if t.process == 0 {
			files = append(files, nil)
			continue
		}
		file, err := os.Open("/proc/" + strconv.Itoa(t.process) + "/ns/" + t.name)
		if err != nil {
			return fmt.Errorf("opening a namespace: %w", err)
		}
		files = append(files, file)
	}
	for i, file := range files {
		if file == nil {
			continue
		}
		if targets[i].kind == unix.CLONE_NEWNS {
			// A thread that shares its root and working directory may not change its mounts.
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("leaving the shared root: %w", err)
			}
		}
		if err := unix.Setns(int(file.Fd()), targets[i].kind); err != nil {
			return fmt.Errorf("entering the %s namespace: %w", targets[i].name, err)
		}
		file.Close()
	}
	return nil
}
