//go:build linux

package preflight

import "testing"

func TestVersions(t *testing.T) {
	for text, want := range map[string][3]int{
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1": {1, 6, 20},
		"containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490": {2, 1, 4},
	} {
		if got, ok := version(tools[0].pattern, text); !ok || got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if got, ok := version(tools[2].pattern, "nftables v1.0.6 (Lester Gooch #5)"); !ok || older(got, tools[2].least) {
		t.Errorf("nft: %v", got)
	}
	if !older([3]int{1, 5, 9}, [3]int{1, 6, 0}) || older([3]int{2, 0, 0}, [3]int{1, 6, 0}) || older([3]int{1, 6, 0}, [3]int{1, 6, 0}) {
		t.Error("versions are ordered wrongly")
	}
}
