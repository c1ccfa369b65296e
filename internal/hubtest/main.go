package hubtest

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"usercast/transport/redis"
)

// helperVariable is an environment variable that makes a test binary run a helper instead of tests. Its value is the
// name of the helper, followed by one line per argument.
const helperVariable = "HUBTEST_HELPER"

// Main is the TestMain of a package. It runs the tests, and fails if a goroutine is left. In a process that StartHelper
// has started, it runs the helper instead.
func Main(m *testing.M, helpers map[string]func(args []string) error) {
	if call := os.Getenv(helperVariable); call != "" {
		words := strings.Split(call, "\n")
		if err := helpers[words[0]](words[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	moreParallel()
	redis.DisableClientLog() // the hubs of this process log the relevant events
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// moreParallel runs more tests at a time than there are cores, unless -parallel was set, because most tests only wait.
func moreParallel() {
	flag.Parse()
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == "test.parallel" })
	if !isSet {
		_ = flag.Set("test.parallel", "6")
	}
}

// StartHelper starts one of the helpers that were passed to Main, in a separate process.
func StartHelper(tb testing.TB, name string, args ...string) *Program {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return StartProcess(tb, []string{helperVariable + "=" + strings.Join(append([]string{name}, args...), "\n")}, self)
}
