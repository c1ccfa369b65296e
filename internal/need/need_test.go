package need

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// recorder records how a test ended.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()      {}
func (r *recorder) Name() string { return "TestSomething" }
func (r *recorder) Skip(args ...any) {
	r.skipped = fmt.Sprint(args...)
	runtime.Goexit()
}
func (r *recorder) Skipf(format string, args ...any) { r.Skip(fmt.Sprintf(format, args...)) }
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// run runs a test function that returns or ends its goroutine.
func run(test func(testing.TB)) *recorder {
	r := &recorder{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		test(r)
	}()
	<-done
	return r
}

func TestMissingProgramSkipsAndIsReported(t *testing.T) {
	if testing.Short() {
		t.Skip("everything skips in short mode")
	}
	report := filepath.Join(t.TempDir(), "report")
	t.Setenv("NEED_REPORT", report)
	t.Setenv("CI", "")
	r := run(func(tb testing.TB) { Program(tb, "no-such-program", "nor-this") })
	if want := "no-such-program is missing: apt-get install no-such-program"; r.skipped != want || r.failed != "" {
		t.Errorf("skipped %q, failed %q; want skipped %q", r.skipped, r.failed, want)
	}
	r = run(func(tb testing.TB) {
		if Optional(tb, "no-such-program") || OptionalFile(tb, "no-such-file", "make it") {
			t.Error("a missing requirement is reported as present")
		}
	})
	if r.skipped != "" || r.failed != "" {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
	got, err := os.ReadFile(report)
	line := "no-such-program\tapt-get install no-such-program\tTestSomething\n"
	if want := line + line + "no-such-file\tmake it\tTestSomething\n"; err != nil || string(got) != want {
		t.Errorf("reported %q, %v; want %q", got, err, want)
	}
}

func TestMissingProgramFailsInCI(t *testing.T) {
	if testing.Short() {
		t.Skip("everything skips in short mode")
	}
	t.Setenv("CI", "true")
	for name, test := range map[string]func(testing.TB){
		"Program":  func(tb testing.TB) { Program(tb, "no-such-program") },
		"Optional": func(tb testing.TB) { Optional(tb, "no-such-program") },
		"Command":  func(tb testing.TB) { Command(tb, "python3-x", "no-such-program") },
		"File":     func(tb testing.TB) { File(tb, "no-such-file", "make it") },
	} {
		if r := run(test); r.failed == "" || r.skipped != "" {
			t.Errorf("%s: skipped %q, failed %q", name, r.skipped, r.failed)
		}
	}
}

func TestPresentProgramRuns(t *testing.T) {
	if testing.Short() {
		t.Skip("everything skips in short mode")
	}
	var path string
	r := run(func(tb testing.TB) {
		path = Program(tb, "no-such-program", "go")
		Command(tb, "golang", path, "version")
	})
	if r.skipped != "" || r.failed != "" || filepath.Base(path) != "go" {
		t.Errorf("skipped %q, failed %q, path %q", r.skipped, r.failed, path)
	}
}
