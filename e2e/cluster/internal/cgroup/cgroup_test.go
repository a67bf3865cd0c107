//go:build linux

package cgroup

import (
	"reflect"
	"testing"
)

func TestParseKnowsEveryArrangement(t *testing.T) {
	const (
		one    = "32 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
		two    = "41 25 0:36 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
		others = "22 1 0:20 / /proc rw - proc proc rw\ngarbage\n"
	)
	for name, test := range map[string]struct {
		table string
		want  Hierarchies
	}{
		"hybrid":    {others + one + two, Hierarchies{"/sys/fs/cgroup/unified", []string{"/sys/fs/cgroup/cpu"}, "/sys/fs/cgroup/unified"}},
		"version 1": {one, Hierarchies{"/sys/fs/cgroup/cpu", []string{"/sys/fs/cgroup/cpu"}, ""}},
		"version 2": {two, Hierarchies{"/sys/fs/cgroup/unified", nil, "/sys/fs/cgroup/unified"}},
		"none":      {others, Hierarchies{}},
	} {
		if got := parse(test.table); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAKilledProcessIsKnownByItsPendingSignal(t *testing.T) {
	for status, want := range map[string]bool{
		"Name:\tx\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n": true,
		"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004100\n": true,
		"Name:\tx\nSigPnd:\t0000000000004000\nShdPnd:\t0000000000000000\n": false,
	} {
		if killPending(status) != want {
			t.Errorf("%q", status)
		}
	}
}
