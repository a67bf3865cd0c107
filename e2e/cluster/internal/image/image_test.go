package image

import (
	"os"
	"path/filepath"
	"testing"

	"tanka.dev/e2e/cluster/internal/refusal"
)

func TestWhatIsWrittenIsRead(t *testing.T) {
	folder := t.TempDir()
	program, archive := filepath.Join(folder, "program"), filepath.Join(folder, "image.tar")
	if err := os.WriteFile(program, []byte("not really"), 0o755); err != nil {
		t.Fatal(err)
	}
	var configs []string
	for range 2 {
		if err := Write(archive, Program{Reference: "localhost/a/b:1", File: program}); err != nil {
			t.Fatal(err)
		}
		images, err := Read(archive)
		if err != nil || len(images) != 1 || images[0].Reference != "localhost/a/b:1" {
			t.Fatalf("%v, %v", images, err)
		}
		configs = append(configs, images[0].Config)
	}
	if configs[0] != configs[1] {
		t.Error("the same program makes two different images, so it would be imported again")
	}
}

func TestWhatIsNoArchiveIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + "missing"} {
		if _, err := Read(path); refusal.ExitCode(err) != 2 {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestFullName(t *testing.T) {
	for short, want := range map[string]string{
		"redis:7": "docker.io/library/redis:7", "a/b:1": "docker.io/a/b:1", "localhost/a:1": "localhost/a:1", "r.io:5000/a:1": "r.io:5000/a:1",
	} {
		if got := fullName(short); got != want {
			t.Errorf("%s became %s", short, got)
		}
	}
}
