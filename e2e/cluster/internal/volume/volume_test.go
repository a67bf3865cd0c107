package volume

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func claim() *corev1.PersistentVolumeClaim {
	class := "standard"
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "data", UID: "1-2-3",
			Annotations: map[string]string{provisionerAnnotation: Provisioner, selectedNode: "node-2"},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			},
		},
	}
}

func TestOnlyTheChosenNodeProvides(t *testing.T) {
	if !wantsVolume(claim(), "node-2") || wantsVolume(claim(), "node-1") {
		t.Error("the wrong node provides")
	}
	bound := claim()
	bound.Spec.VolumeName = "pvc-1-2-3"
	if wantsVolume(bound, "node-2") {
		t.Error("a claim that has its volume gets another")
	}
}

func TestTheVolumeIsPinnedToItsNode(t *testing.T) {
	volume := newVolume(claim(), "node-2", "/folder")
	keeper := Keeper{Node: "node-2", Folder: "/folder"}
	if volume.Name != "pvc-1-2-3" || volume.Spec.Local.Path != "/folder/pvc-1-2-3" || !keeper.owns(volume) {
		t.Errorf("%+v", volume)
	}
	terms := volume.Spec.NodeAffinity.Required.NodeSelectorTerms
	if len(terms) != 1 || terms[0].MatchExpressions[0].Values[0] != "node-2" {
		t.Errorf("%+v", terms)
	}
}

func TestAFolderThatIsNotOursIsNotDeleted(t *testing.T) {
	foreign := t.TempDir()
	volume := newVolume(claim(), "node-2", "/folder")
	volume.Spec.Local.Path = foreign
	keeper := Keeper{Node: "node-2", Folder: filepath.Join(t.TempDir(), "volumes")}
	if err := keeper.remove(context.Background(), volume); err == nil {
		t.Error("it was deleted")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error(err)
	}
}
