// Package image writes, reads and imports image archives. No image tool is needed: an archive is a tar file with
// a little JSON.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
)

// Program is a static program that becomes an image of its own.
type Program struct {
	Reference string // the image's name and tag
	File      string // the program on this machine; it becomes /program in the image
}

type archiveManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// Write makes a docker-archive that holds one program and nothing else.
func Write(archive string, program Program) error {
	layer, err := programLayer(program.File)
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Entrypoint": []string{"/program"}, "User": "65532:65532"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(layer)}},
	})
	if err != nil {
		return fmt.Errorf("describing image %s: %w", program.Reference, err)
	}
	configName := digest(config) + ".json"
	manifest, err := json.Marshal([]archiveManifest{
		{Config: configName, RepoTags: []string{program.Reference}, Layers: []string{"layer.tar"}},
	})
	if err != nil {
		return fmt.Errorf("describing image %s: %w", program.Reference, err)
	}
	file, err := os.Create(archive)
	if err != nil {
		return fmt.Errorf("making %s: %w", archive, err)
	}
	defer file.Close()
	writer := tar.NewWriter(file)
	for _, part := range []struct {
		name    string
		content []byte
	}{{"layer.tar", layer}, {configName, config}, {"manifest.json", manifest}} {
		if err := addFile(writer, part.name, 0o644, part.content); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return fmt.Errorf("finishing %s: %w", archive, err)
	}
	return nil
}

func programLayer(file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a program: %w", err)
	}
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	if err := writer.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}); err != nil {
		return nil, fmt.Errorf("making a layer: %w", err)
	}
	if err := addFile(writer, "program", 0o755, content); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, fmt.Errorf("finishing a layer: %w", err)
	}
	return layer.Bytes(), nil
}

func addFile(writer *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg}
	if err := writer.WriteHeader(header); err != nil {
		return fmt.Errorf("adding %s to an archive: %w", name, err)
	}
	if _, err := io.Copy(writer, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("adding %s to an archive: %w", name, err)
	}
	return nil
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
