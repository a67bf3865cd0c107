// Package volume provides persistent volumes as folders on a node's disk. Each node's agent makes, grows and
// deletes those of its own node, so a volume is exactly as available as its node.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// Provisioner is the name that a StorageClass uses.
	Provisioner = "tanka.dev/node-folder"

	provisionerAnnotation = "volume.kubernetes.io/storage-provisioner"
	selectedNode          = "volume.kubernetes.io/selected-node"
	provisionedBy         = "pv.kubernetes.io/provisioned-by"
)

// Keeper looks after the volumes of one node.
type Keeper struct {
	Node   string
	Folder string
	Client kubernetes.Interface

	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
}

// Run works until the context ends. Every change makes it look at everything again: there are few volumes, and what
// failed is tried again after a second.
func (k *Keeper) Run(ctx context.Context, factory informers.SharedInformerFactory) error {
	claims := factory.Core().V1().PersistentVolumeClaims()
	volumes := factory.Core().V1().PersistentVolumes()
	k.claims, k.volumes = claims.Lister(), volumes.Lister()
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() }, UpdateFunc: func(_, _ any) { notify() }, DeleteFunc: func(any) { notify() },
	}
	for _, informer := range []cache.SharedIndexInformer{claims.Informer(), volumes.Informer()} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	for {
		if err := k.reconcile(ctx); err != nil {
			log.Printf("volume: %v", err)
			time.AfterFunc(time.Second, notify)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (k *Keeper) reconcile(ctx context.Context) error {
	var faults []error
	claims, _ := k.claims.List(labels.Everything()) // a lister reads memory and cannot fail
	for _, claim := range claims {
		if wantsVolume(claim, k.Node) {
			faults = append(faults, k.provision(ctx, claim))
		} else if claim.Status.Phase == corev1.ClaimBound {
			faults = append(faults, k.grow(ctx, claim))
		}
	}
	volumes, _ := k.volumes.List(labels.Everything())
	for _, volume := range volumes {
		if k.owns(volume) && volume.Status.Phase == corev1.VolumeReleased &&
			volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
			faults = append(faults, k.remove(ctx, volume))
		}
	}
	return errors.Join(faults...)
}

// wantsVolume reports a claim that waits for this node to provide: the scheduler has chosen it.
func wantsVolume(claim *corev1.PersistentVolumeClaim, node string) bool {
	return claim.Annotations[provisionerAnnotation] == Provisioner && claim.Annotations[selectedNode] == node &&
		claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil
}

// owns reports a volume of ours whose folder is on this node.
func (k *Keeper) owns(volume *corev1.PersistentVolume) bool {
	return volume.Annotations[provisionedBy] == Provisioner && volume.Labels[corev1.LabelHostname] == k.Node
}

func (k *Keeper) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	class, err := k.Client.StorageV1().StorageClasses().Get(ctx, *claim.Spec.StorageClassName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading the class of %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	volume := newVolume(claim, k.Node, k.Folder)
	if class.ReclaimPolicy != nil {
		volume.Spec.PersistentVolumeReclaimPolicy = *class.ReclaimPolicy
	}
	path := volume.Spec.Local.Path
	if err := os.MkdirAll(path, 0o777); err != nil {
		return fmt.Errorf("making a volume's folder: %w", err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // the umask took some of it
		return fmt.Errorf("opening a volume's folder: %w", err)
	}
	_, err = k.Client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("making the volume of %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

// newVolume is the volume for a claim. Its name follows from the claim, so making it twice makes it once.
func newVolume(claim *corev1.PersistentVolumeClaim, node, folder string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	mode := corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Labels:      map[string]string{corev1.LabelHostname: node},
			Annotations: map[string]string{provisionedBy: Provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *claim.Spec.Resources.Requests.Storage()},
			AccessModes:                   claim.Spec.AccessModes,
			VolumeMode:                    &mode,
			StorageClassName:              *claim.Spec.StorageClassName,
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				Local: &corev1.LocalVolumeSource{Path: filepath.Join(folder, name)},
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{
					Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{node},
				}}}},
			}},
		},
	}
}

// grow grants a larger size. A folder has no size of its own, so this is only a matter of the books.
func (k *Keeper) grow(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	volume, err := k.volumes.Get(claim.Spec.VolumeName)
	if err != nil || !k.owns(volume) {
		return nil // not ours, or not seen yet: then its own event brings us back
	}
	wanted := *claim.Spec.Resources.Requests.Storage()
	if wanted.Cmp(*volume.Spec.Capacity.Storage()) > 0 {
		larger := volume.DeepCopy()
		larger.Spec.Capacity[corev1.ResourceStorage] = wanted
		if _, err := k.Client.CoreV1().PersistentVolumes().Update(ctx, larger, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("growing %s: %w", volume.Name, err)
		}
	}
	if wanted.Cmp(*claim.Status.Capacity.Storage()) <= 0 {
		return nil
	}
	granted := claim.DeepCopy()
	granted.Status.Capacity[corev1.ResourceStorage] = wanted
	granted.Status.Conditions = nil
	if _, err := k.Client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, granted, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("granting the size of %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

// remove deletes a folder, then its volume: the other way round a crash would leave the folder for ever.
func (k *Keeper) remove(ctx context.Context, volume *corev1.PersistentVolume) error {
	path := volume.Spec.Local.Path
	if filepath.Dir(path) != filepath.Clean(k.Folder) {
		return fmt.Errorf("volume %s lies in %s, which is not ours to delete", volume.Name, path)
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("deleting a volume's folder: %w", err)
	}
	err := k.Client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &volume.UID},
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting volume %s: %w", volume.Name, err)
	}
	return nil
}
