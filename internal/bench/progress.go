package bench

import (
	"fmt"
	"io"

	"github.com/schollz/progressbar/v3"

	"usercast/internal/load"
)

// newBar returns a function that draws a progress bar for each phase, and one that removes the last bar.
func newBar(w io.Writer) (progress func(load.Progress), finish func()) {
	var bar *progressbar.ProgressBar
	phase := ""
	finish = func() {
		if bar != nil {
			_ = bar.Clear()
		}
	}
	return func(p load.Progress) {
		if p.Phase == "" {
			return
		}
		if p.Phase != phase {
			finish()
			phase = p.Phase
			bar = progressbar.NewOptions64(p.Total,
				progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(30),
				progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false))
		}
		_ = bar.Set64(p.Done)
		bar.Describe(fmt.Sprintf("%-11s %s", p.Phase, p.Note))
	}, finish
}
