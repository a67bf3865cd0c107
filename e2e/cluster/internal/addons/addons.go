// Package addons is what runs inside the cluster from the start: DNS, the metrics API and the storage class.
package addons

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"tanka.dev/e2e/cluster/internal/kubeapi"
	"tanka.dev/e2e/cluster/internal/layout"
	"tanka.dev/e2e/cluster/internal/settings"
)

//go:embed addons.yaml
var manifest string

// Apply makes the add-ons what they should be. It may run again at any time.
func Apply(ctx context.Context, client *kubeapi.Client, nodes int) error {
	for _, document := range documents(nodes) {
		path, err := objectPath([]byte(document))
		if err != nil {
			return err
		}
		if err := client.Apply(ctx, path, []byte(document)); err != nil {
			return fmt.Errorf("applying %s: %w", path, err)
		}
	}
	return nil
}

// documents fills in what depends on the cluster. DNS has a second replica where there is a second node to put it.
func documents(nodes int) []string {
	filled := strings.NewReplacer(
		"${DNS_IMAGE}", settings.DNSImage,
		"${METRICS_IMAGE}", settings.MetricsImage,
		"${DNS_SERVICE_IP}", layout.DNSServiceIP,
		"${DNS_REPLICAS}", fmt.Sprint(min(nodes, 2)),
	).Replace(manifest)
	return strings.Split(filled, "\n---\n")
}

// collections says where objects of a kind live and whether they have a namespace.
var collections = map[string]struct {
	path       string
	namespaced bool
}{
	"ServiceAccount":      {"/api/v1", true},
	"ConfigMap":           {"/api/v1", true},
	"Service":             {"/api/v1", true},
	"Deployment":          {"/apis/apps/v1", true},
	"PodDisruptionBudget": {"/apis/policy/v1", true},
	"Role":                {"/apis/rbac.authorization.k8s.io/v1", true},
	"RoleBinding":         {"/apis/rbac.authorization.k8s.io/v1", true},
	"ClusterRole":         {"/apis/rbac.authorization.k8s.io/v1", false},
	"ClusterRoleBinding":  {"/apis/rbac.authorization.k8s.io/v1", false},
	"StorageClass":        {"/apis/storage.k8s.io/v1", false},
	"APIService":          {"/apis/apiregistration.k8s.io/v1", false},
}

func objectPath(document []byte) (string, error) {
	var object struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(document, &object); err != nil {
		return "", fmt.Errorf("reading an add-on: %w", err)
	}
	collection, ok := collections[object.Kind]
	if !ok || object.Metadata.Name == "" || collection.namespaced != (object.Metadata.Namespace != "") {
		return "", fmt.Errorf("add-on %s %q is not one that can be applied", object.Kind, object.Metadata.Name)
	}
	plural := strings.ToLower(object.Kind) + "s"
	if object.Kind == "StorageClass" {
		plural = "storageclasses"
	}
	if collection.namespaced {
		return fmt.Sprintf("%s/namespaces/%s/%s/%s", collection.path, object.Metadata.Namespace, plural, object.Metadata.Name), nil
	}
	return fmt.Sprintf("%s/%s/%s", collection.path, plural, object.Metadata.Name), nil
}
