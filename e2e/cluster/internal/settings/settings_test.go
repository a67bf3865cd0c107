package settings

import (
	"encoding/json"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"tanka.dev/e2e/cluster/internal/layout"
)

func TestConfigurationFilesParse(t *testing.T) {
	c := layout.Cluster{Name: "a", State: "/state", Cache: "/cache"}
	for name, text := range map[string]string{
		"kubelet": Kubelet(c, 1), "kube-proxy": KubeProxy(c, 1), "audit policy": AuditPolicy(), "kubeconfig": Kubeconfig("a", "https://127.0.0.1:1", []byte("a"), nil, nil),
	} {
		var value map[string]any
		if err := yaml.UnmarshalStrict([]byte(text), &value); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	var network map[string]any
	if err := json.Unmarshal([]byte(PodNetwork(2)), &network); err != nil || !strings.Contains(PodNetwork(2), "10.91.2.0/24") {
		t.Errorf("pod network: %v", err)
	}
}

func TestWithoutAControllerManagerPodsNeedNoServiceAccount(t *testing.T) {
	const flag = "--disable-admission-plugins=ServiceAccount"
	for with, want := range map[bool]bool{true: false, false: true} {
		if got := strings.Contains(strings.Join(APIServer(layout.Cluster{}, with), " "), flag); got != want {
			t.Errorf("with controller manager %t: %t", with, got)
		}
	}
}
