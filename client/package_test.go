package client_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"usercast/internal/need"
)

// The module is at most 4 kB gzipped.
func TestSize(t *testing.T) {
	source, err := os.ReadFile("usercast.js")
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	w, _ := gzip.NewWriterLevel(&zipped, gzip.DefaultCompression)
	w.Write(source)
	w.Close()
	t.Logf("%d bytes, gzipped %d", len(source), zipped.Len())
	if zipped.Len() > 4000 {
		t.Errorf("gzipped %d bytes, want 4000 at most", zipped.Len())
	}
}

func TestPackageFiles(t *testing.T) {
	out, err := exec.Command(need.Program(t, "npm"), "pack", "--dry-run", "--json", "--offline").Output()
	if err != nil {
		t.Fatalf("npm pack: %v", err)
	}
	var packs []struct {
		Name  string
		Files []struct{ Path string }
	}
	if err := json.Unmarshal(out, &packs); err != nil || len(packs) != 1 {
		t.Fatalf("npm pack printed %s, %v", out, err)
	}
	var files []string
	for _, f := range packs[0].Files {
		files = append(files, f.Path)
	}
	slices.Sort(files)
	if want := []string{"LICENSE", "README.md", "package.json", "usercast.d.ts", "usercast.js"}; packs[0].Name != "usercast" || !slices.Equal(files, want) {
		t.Errorf("the package %s contains %q, want %q", packs[0].Name, files, want)
	}
	ours, _ := os.ReadFile("LICENSE")
	if license, err := os.ReadFile("../LICENSE"); err != nil || !bytes.Equal(ours, license) {
		t.Errorf("the license of the package differs from that of the project: %v", err)
	}
}

// usage is type-checked, but not run.
const usage = `
import { connect, type Message, type Options, type State, type Stream } from "usercast";

const options: Options = { topics: ["a"] as const, share: "42", token: async () => null, retry: 1, silence: 2, withCredentials: true };
const stream: Stream = connect(new URL("https://example.com/events"), options);
const off: () => void = stream.on("a", (data: string, message: Message) => data + message.id + message.topic);
stream.on(data => data.length);
stream.onGap(reason => reason.length);
stream.onState((state: State, reason?: string) => state === "open" && reason === undefined);
const ready: Promise<void> = stream.ready;
off(), ready, stream.close();

// @ts-expect-error
stream.on("a");
// @ts-expect-error
stream.state = "open";
// @ts-expect-error
if (stream.state === "opened") {}
// @ts-expect-error
connect("/events", { topic: "a" });
// @ts-expect-error
connect("/events", { token: "not a function" });
`

// The types accept the examples in the README, and reject errors.
func TestTypes(t *testing.T) {
	need.Program(t, "node")
	need.File(t, "node_modules/typescript", "npm --prefix client ci --ignore-scripts")
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(here, "node_modules")
	dir := t.TempDir()
	files := map[string]string{
		"usage.ts":      usage,
		"globals.d.ts":  "declare const userID: string; declare function render(what: unknown): void; declare function load(): void;",
		"tsconfig.json": `{"compilerOptions": {"strict": true, "skipLibCheck": true, "noImplicitAny": false, "allowJs": true, "checkJs": true, "noEmit": true, "target": "es2022", "module": "preserve", "lib": ["es2022", "dom"], "types": []}, "include": ["*"]}`,
		"package.json":  `{"type": "module"}`,
	}
	for name, content := range recipes(t) {
		files["recipe-"+name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"usercast": here, "vue": filepath.Join(modules, "vue"), "react": filepath.Join(modules, "react"), "@types": filepath.Join(modules, "@types"),
	} {
		link := filepath.Join(dir, "node_modules", name)
		if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("node", filepath.Join(modules, "typescript", "bin", "tsc"), "-p", dir).CombinedOutput()
	if err != nil {
		t.Errorf("tsc: %v\n%s", err, out)
	}
}
