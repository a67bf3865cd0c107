package image

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// Image is what an archive says about one image in it.
type Image struct {
	Reference string // full name with tag
	Config    string // digest of its configuration, which names its content
}

type descriptor struct {
	Digest      string            `json:"digest"`
	MediaType   string            `json:"mediaType"`
	Annotations map[string]string `json:"annotations"`
}

type imageManifest struct {
	Config    descriptor   `json:"config"`
	Manifests []descriptor `json:"manifests"`
}

// Read lists the images in a docker-archive or oci-archive file.
func Read(archive string) ([]Image, error) {
	metadata, err := readMetadata(archive)
	if err != nil {
		return nil, err
	}
	var images []Image
	if manifest, ok := metadata["manifest.json"]; ok {
		images = dockerImages(manifest, metadata)
	} else if index, ok := metadata["index.json"]; ok {
		images = ociImages(index, metadata)
	}
	if len(images) == 0 {
		return nil, refusal.New("%s holds no named image; write it with \"docker save\" or \"buildah push IMAGE docker-archive:FILE:NAME:TAG\"", archive)
	}
	return images, nil
}

// maxMetadata bounds what is read as JSON; anything larger is a layer.
const maxMetadata = 1 << 20

// readMetadata reads the small files of an archive. Layers are skipped by seeking.
func readMetadata(archive string) (map[string][]byte, error) {
	file, err := os.Open(archive)
	if err != nil {
		return nil, refusal.New("%s cannot be read (%v); give the path of an image archive", archive, err)
	}
	defer file.Close()
	metadata := map[string][]byte{}
	for reader := tar.NewReader(file); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return metadata, nil
		}
		if err != nil {
			return nil, refusal.New("%s is not an uncompressed tar archive (%v); write it again, without compression", archive, err)
		}
		if header.Typeflag == tar.TypeReg && header.Size <= maxMetadata {
			content, err := io.ReadAll(reader)
			if err != nil {
				return nil, refusal.New("%s is cut off (%v); write it again", archive, err)
			}
			metadata[path.Clean(header.Name)] = content
		}
	}
}

func dockerImages(manifest []byte, metadata map[string][]byte) []Image {
	var entries []archiveManifest
	if json.Unmarshal(manifest, &entries) != nil {
		return nil
	}
	var images []Image
	for _, entry := range entries {
		config, ok := metadata[path.Clean(entry.Config)]
		for _, tag := range entry.RepoTags {
			if ok {
				images = append(images, Image{Reference: fullName(tag), Config: "sha256:" + digest(config)})
			}
		}
	}
	return images
}

func ociImages(index []byte, metadata map[string][]byte) []Image {
	var top imageManifest
	if json.Unmarshal(index, &top) != nil {
		return nil
	}
	var images []Image
	for _, entry := range top.Manifests {
		name := entry.Annotations["io.containerd.image.name"]
		if name == "" {
			name = entry.Annotations["org.opencontainers.image.ref.name"]
		}
		var manifest imageManifest
		blob := metadata[path.Join("blobs", strings.Replace(entry.Digest, ":", "/", 1))]
		if strings.Contains(name, ":") && json.Unmarshal(blob, &manifest) == nil && manifest.Config.Digest != "" {
			images = append(images, Image{Reference: fullName(name), Config: manifest.Config.Digest})
		}
	}
	return images
}

// fullName adds what the container runtime adds to a short name.
func fullName(name string) string {
	first, _, found := strings.Cut(name, "/")
	switch {
	case !found:
		return "docker.io/library/" + name
	case strings.ContainsAny(first, ".:") || first == "localhost":
		return name
	default:
		return "docker.io/" + name
	}
}
