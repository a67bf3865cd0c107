//go:build linux

// Package cgroup keeps track of a cluster's processes by the control group that they are born into. A group's
// path is an identity that survives the death of any process, cannot be reused like a pid and is inherited by
// everything that a process starts, so whatever was killed, the rest can still be found.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// Hierarchies are the mounted cgroup trees of this machine.
type Hierarchies struct {
	Tracking string   // the one tree whose groups identify daemons
	V1       []string // controllers of version 1, if any
	Unified  string   // version 2, if mounted
}

// Detect reads the mount table.
func Detect() (Hierarchies, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Hierarchies{}, fmt.Errorf("reading the mount table: %w", err)
	}
	found := parse(string(table))
	if found.Tracking == "" {
		return found, refusal.New("no cgroup tree is mounted; mount one on /sys/fs/cgroup and try again")
	}
	return found, nil
}

func parse(mountinfo string) Hierarchies {
	var found Hierarchies
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		switch path := fields[4]; strings.Fields(after)[0] {
		case "cgroup2":
			found.Unified = path
		case "cgroup":
			found.V1 = append(found.V1, path)
		}
	}
	found.Tracking = found.Unified
	if found.Tracking == "" && len(found.V1) > 0 {
		found.Tracking = found.V1[0]
	}
	return found
}

func (h Hierarchies) all() []string {
	if h.Unified == "" {
		return h.V1
	}
	return append([]string{h.Unified}, h.V1...)
}

// Create makes a group in every tree: the kubelet wants its root there, and a daemon that were only in some would
// be counted against the limits of whoever started the launcher in the others.
func (h Hierarchies) Create(group string) error {
	for _, tree := range h.all() {
		path := tree
		for _, part := range strings.Split(strings.Trim(group, "/"), "/") {
			parent := path
			path = filepath.Join(path, part)
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("making cgroup %s: %w", path, err)
			}
			inherit(parent, path)
		}
	}
	return nil
}

// inherit hands down what a new group does not get by itself: version 1's cpusets, version 2's controllers. A file
// that is not there belongs to another version.
func inherit(parent, child string) {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if value, err := os.ReadFile(filepath.Join(parent, file)); err == nil {
			_ = os.WriteFile(filepath.Join(child, file), value, 0o644)
		}
	}
	if controllers, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers")); err == nil {
		for _, controller := range strings.Fields(string(controllers)) {
			_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		}
	}
}

// Join moves the calling process into a group in every tree.
func (h Hierarchies) Join(group string) error {
	for _, tree := range h.all() {
		if err := os.WriteFile(tree+group+"/cgroup.procs", []byte("0"), 0o644); err != nil {
			return fmt.Errorf("joining cgroup %s: %w", tree+group, err)
		}
	}
	return nil
}

// Find is the process in a group that runs a program of one of the given names, or 0. The name tells a daemon from what it
// started: containers stay in their runtime's group in trees that the runtime does not use.
func (h Hierarchies) Find(group string, programs ...string) int {
	text, err := os.ReadFile(h.Tracking + group + "/cgroup.procs")
	if err != nil {
		return 0
	}
	for _, field := range strings.Fields(string(text)) {
		executable, err := os.Readlink("/proc/" + field + "/exe")
		if err != nil || !slices.Contains(programs, filepath.Base(strings.TrimSuffix(executable, " (deleted)"))) {
			continue
		}
		if pid, err := strconv.Atoi(field); err == nil && !isZombie(pid) {
			return pid
		}
	}
	return 0
}

// Members lists every live process in a group or below it, in any tree.
func Members(group string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var members []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && belongs(pid, group) {
			members = append(members, pid)
		}
	}
	return members
}

func belongs(pid int, group string) bool {
	file, err := os.Open(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return false
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) == 3 && (parts[2] == group || strings.HasPrefix(parts[2], group+"/")) {
			return !isZombie(pid)
		}
	}
	return false
}

// isZombie reports a process that is dead already and only waits for its parent.
func isZombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// Dying reports whether a process in a group or below it was killed and has not ended yet: on a busy machine it can
// look alive for a while.
func Dying(group string) bool {
	for _, pid := range Members(group) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && killPending(string(status)) {
			return true
		}
	}
	return false
}

// killPending looks for SIGKILL among the signals that a process has yet to take.
func killPending(status string) bool {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		if name != "SigPnd" && name != "ShdPnd" {
			continue
		}
		if set, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64); err == nil && set>>(syscall.SIGKILL-1)&1 == 1 {
			return true
		}
	}
	return false
}

// KillAll ends every process in a group and below it, again and again until none is left: one may have been
// starting another.
func (h Hierarchies) KillAll(group string, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		h.thaw(group)
		members := Members(group)
		if len(members) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v of %s do not die", members, group)
		}
		for _, pid := range members {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// thaw lets paused containers receive the signal: under version 1 a frozen process does not even die of SIGKILL.
func (h Hierarchies) thaw(group string) {
	for _, tree := range h.V1 {
		if filepath.Base(tree) != "freezer" {
			continue
		}
		for _, folder := range descendants(tree + group) {
			_ = os.WriteFile(filepath.Join(folder, "freezer.state"), []byte("THAWED"), 0o644)
		}
	}
}

// Remove deletes a group and all below it from every tree.
func (h Hierarchies) Remove(group string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		left := h.Folders(group)
		if len(left) == 0 {
			return nil
		}
		for i := len(left) - 1; i >= 0; i-- {
			_ = os.Remove(left[i])
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("cgroup %s cannot be removed", left[len(left)-1])
		}
		if len(h.Folders(group)) > 0 {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// Folders lists the folders of a group and of those below it in every tree, parents first.
func (h Hierarchies) Folders(group string) []string {
	var folders []string
	for _, tree := range h.all() {
		folders = append(folders, descendants(tree+group)...)
	}
	return folders
}

func descendants(folder string) []string {
	var found []string
	_ = filepath.WalkDir(folder, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return nil // a group may vanish while we look
		}
		if entry.IsDir() {
			found = append(found, path)
		}
		return nil
	})
	return found
}
