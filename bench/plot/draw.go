package main

import (
	"bytes"
	"fmt"
	"math"
	"strings"
)

// A panel shows one column of the files by the number of streams.
type panel struct {
	title, unit string
	column      string
	scale       float64 // factor from the unit of the column
	log         bool    // logarithmic axis; otherwise it begins at 0
}

var panels = []panel{
	{title: "Memory per idle stream", unit: "KiB, resident", column: "rss_bytes_per_stream", scale: 1.0 / 1024},
	{title: "CPU per delivery", unit: "µs", column: "delivery_cpu_us", scale: 1},
	{title: "Latency, p99", unit: "ms", column: "delivery_p99_ms", scale: 1, log: true},
}

// Positions and sizes in the picture, in pixels if it is not scaled.
const (
	width, height     = 960, 340
	panelWidth        = width / 3
	left, right       = 56, 20 // margins of the plot in a panel
	top, bottom       = 100, 290
	firstX, lastX     = 3, 6 // powers of ten
	plotWidth         = panelWidth - left - right
	plotHeight        = bottom - top
	markSize, linePad = 3.5, 4
)

const style = `
  text { font: 12px system-ui, sans-serif; fill: #57606a }
  .title { font-size: 14px; font-weight: 600; fill: #1f2328 }
  .back { fill: #ffffff }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .line { fill: none; stroke-width: 2 }
  .memory { stroke: #0969da } .memory.mark { fill: #0969da }
  .sockets { stroke: #bc4c00; stroke-dasharray: 5 3 } .sockets.mark { fill: #bc4c00; stroke-dasharray: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .title { fill: #f0f6fc }
    .back { fill: #0d1117 }
    .grid { stroke: #3d444d }
    .memory { stroke: #4493f8 } .memory.mark { fill: #4493f8 }
    .sockets { stroke: #f0883e } .sockets.mark { fill: #f0883e }
  }
`

// draw returns the picture as SVG.
func draw(all []series) ([]byte, error) {
	for _, s := range all {
		for _, row := range s.rows {
			for _, name := range []string{"streams", panels[0].column, panels[1].column, panels[2].column} {
				if row[name] <= 0 {
					return nil, fmt.Errorf("%s: %s is %v, but it must be more than 0", s.file, name, row[name])
				}
			}
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-labelledby="title desc">`+"\n", width, height)
	fmt.Fprintf(&b, "<title id=\"title\">Cost per stream by number of streams</title>\n<desc id=\"desc\">%s</desc>\n", describe(all))
	fmt.Fprintf(&b, "<style>%s</style>\n<rect class=\"back\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n", style, width, height)
	x := float64(left)
	for _, s := range all {
		drawLine(&b, s.class, [][2]float64{{x, 26}, {x + 28, 26}})
		drawMark(&b, s.class, x+14, 26)
		drawText(&b, "", "start", x+36, 30, s.name)
		x += 130
	}
	for i, p := range panels {
		fmt.Fprintf(&b, "<g transform=\"translate(%d 0)\">\n", i*panelWidth)
		p.draw(&b, all)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes(), nil
}

// describe returns a description of the picture for screen readers.
func describe(all []series) string {
	var parts []string
	for _, p := range panels {
		for _, s := range all {
			first, last := s.rows[0], s.rows[len(s.rows)-1]
			parts = append(parts, fmt.Sprintf("%s, %s: %s %s at %s streams, %s at %s.", p.title, s.name,
				number(first[p.column]*p.scale), p.unit, streams(first["streams"]), number(last[p.column]*p.scale), streams(last["streams"])))
		}
	}
	return strings.Join(parts, " ")
}

func (p panel) draw(b *bytes.Buffer, all []series) {
	drawText(b, "title", "start", left, 62, p.title)
	drawText(b, "", "start", left, 80, p.unit)
	ticks := p.ticks(all)
	low, high := ticks[0], ticks[len(ticks)-1]
	y := func(v float64) float64 {
		if p.log {
			v, low, high := math.Log10(v), math.Log10(low), math.Log10(high)
			return bottom - (v-low)/(high-low)*plotHeight
		}
		return bottom - (v-low)/(high-low)*plotHeight
	}
	x := func(n float64) float64 { return left + (math.Log10(n)-firstX)/(lastX-firstX)*plotWidth }
	for _, v := range ticks {
		fmt.Fprintf(b, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", left, y(v), panelWidth-right)
		drawText(b, "", "end", left-8, y(v)+linePad, number(v))
	}
	for power := firstX; power <= lastX; power++ {
		n := math.Pow10(power)
		fmt.Fprintf(b, "<path class=\"grid\" d=\"M%.1f %dv5\"/>\n", x(n), bottom)
		drawText(b, "", "middle", x(n), bottom+20, streams(n))
	}
	drawText(b, "", "middle", left+plotWidth/2, bottom+38, "streams")
	for _, s := range all {
		var line [][2]float64
		for _, row := range s.rows {
			line = append(line, [2]float64{x(row["streams"]), y(row[p.column] * p.scale)})
		}
		drawLine(b, s.class, line)
		for _, at := range line {
			drawMark(b, s.class, at[0], at[1])
		}
	}
}

// ticks returns round values that enclose all values of the panel. The first and the last are the ends of the axis.
func (p panel) ticks(all []series) (ticks []float64) {
	low, high := math.Inf(1), 0.0
	for _, s := range all {
		for _, row := range s.rows {
			low, high = min(low, row[p.column]*p.scale), max(high, row[p.column]*p.scale)
		}
	}
	if p.log {
		for power := int(math.Floor(math.Log10(low))); ; power++ {
			ticks = append(ticks, math.Pow(10, float64(power)))
			if len(ticks) > 1 && ticks[len(ticks)-1] >= high {
				return ticks
			}
		}
	}
	// The smallest step of 1, 2, 5, 10 … with which the axis has at most five steps.
	step := math.Pow(10, math.Floor(math.Log10(high/5)))
	for _, round := range []float64{1, 2, 5, 10} {
		if step*round*5 >= high {
			step *= round
			break
		}
	}
	for i := range int(math.Ceil(high/step)) + 1 {
		ticks = append(ticks, float64(i)*step)
	}
	return ticks
}

func drawText(b *bytes.Buffer, class, anchor string, x, y float64, text string) {
	if class != "" {
		class = ` class="` + class + `"`
	}
	fmt.Fprintf(b, "<text%s text-anchor=\"%s\" x=\"%.1f\" y=\"%.1f\">%s</text>\n", class, anchor, x, y, text)
}

func drawLine(b *bytes.Buffer, class string, points [][2]float64) {
	fmt.Fprintf(b, `<polyline class="line %s" points="`, class)
	for i, p := range points {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(b, "%.1f,%.1f", p[0], p[1])
	}
	b.WriteString("\"/>\n")
}

// drawMark draws a circle for data in memory and a square for sockets, because not all readers can distinguish the colors.
func drawMark(b *bytes.Buffer, class string, x, y float64) {
	if class == "memory" {
		fmt.Fprintf(b, "<circle class=\"memory mark\" cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\"/>\n", x, y, markSize)
		return
	}
	fmt.Fprintf(b, "<rect class=\"%s mark\" x=\"%.1f\" y=\"%.1f\" width=\"%.0f\" height=\"%.0f\"/>\n", class, x-markSize, y-markSize, 2*markSize, 2*markSize)
}

// streams formats a number of streams.
func streams(n float64) string {
	switch {
	case n >= 1e6:
		return number(n/1e6) + "M"
	case n >= 1e3:
		return number(n/1e3) + "k"
	}
	return number(n)
}

// number formats a value with three significant digits, or as an integer from 1000 upward.
func number(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
