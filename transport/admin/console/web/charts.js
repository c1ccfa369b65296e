// Charts of the last minutes, drawn by uPlot. Each chart also shows its figures as text.

import { element, setText } from "./dom.js";
import { latency, minuteOf, rate, secondOf } from "./format.js";
import { SPAN } from "./history.js";

const HEIGHT = 132;
const DASHES = [[], [6, 3], [2, 3]]; // lines differ by more than their color

const color = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const decadesOf = (u, min, max) => (min === null ? [1e-4, 1e-2] : uPlot.rangeLog(min, max, 10, true));

/**
 * A chart in a <figure>. Its lines are [{ key, label, color, show, value }]: key names a value in the
 * history entries, value converts it to a number, and show converts it to text.
 */
export class Chart {
  #figure;
  #lines;
  #plot;
  #texts = [];
  #summary;
  #history;
  #hover = null; // index of the entry under the pointer

  constructor(figure, lines, { logarithmic = false, axis } = {}) {
    this.#figure = figure;
    this.#lines = lines.map(line => ({ show: n => rate(n), value: n => n, ...line }));
    const legend = figure.querySelector(".legend");
    for (const [i, line] of this.#lines.entries()) {
      const item = element("li", `line-${i}`);
      item.style.setProperty("--hue", `var(--${line.color})`);
      const figureText = element("b", "", "–");
      item.append(element("span", "key"), element("span", "name", line.label), figureText);
      legend.append(item);
      this.#texts.push(figureText);
    }
    this.#summary = element("p", "unseen");
    figure.append(this.#summary);
    const plot = element("div", "plot");
    plot.setAttribute("aria-hidden", "true"); // the legend and the summary contain the same information
    figure.append(plot);
    this.#plot = new uPlot(this.#options(plot, logarithmic, axis), [[], ...lines.map(() => [])], plot);
    new ResizeObserver(() => this.#plot.setSize({ width: plot.clientWidth, height: HEIGHT })).observe(plot);
  }

  #options(plot, logarithmic, axis = rate) {
    const ink = { stroke: () => color("dim"), font: "11px system-ui, sans-serif", ticks: { show: false } };
    return {
      width: plot.clientWidth || 300,
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: "console" }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      select: { show: false },
      hooks: { setCursor: [u => this.#point(u.cursor.idx ?? null)] },
      scales: {
        x: { time: false, range: (u, min, max) => [max - SPAN, max] },
        // Draw an axis even without data: without one, the chart would be wider than its container.
        y: logarithmic ? { distr: 3, range: decadesOf } : { range: (u, min, max) => [0, Math.max(1, max ?? 0) * 1.1] },
      },
      axes: [
        {
          ...ink, size: 22, grid: { show: false }, incrs: [60, 120], space: 48,
          values: (u, splits) => splits.map(minuteOf),
        },
        {
          ...ink, size: 52, space: 26, grid: { stroke: () => color("line"), width: 1 },
          values: (u, splits) => splits.map(n => (n === null ? "" : axis(n))),
          ...(logarithmic ? { splits: decades, filter: (u, splits) => splits } : { incrs: INCRS }),
        },
      ],
      series: [
        {},
        ...this.#lines.map((line, i) => ({
          stroke: () => color(line.color), width: 1.75, dash: DASHES[i], points: { show: false },
          ...(i === 0 && !logarithmic ? { fill: () => `${color(line.color)}1f` } : {}),
        })),
      ],
    };
  }

  /** Draws the history. */
  draw(history) {
    this.#history = history;
    const at = history.map(e => e.at);
    this.#plot.setData([at, ...this.#lines.map(line => history.map(e => {
      const n = e.figures[line.key];
      return n === null || n === undefined ? null : line.value(n);
    }))]);
    this.#say();
  }

  /** Redraws in the current colors. */
  recolor() {
    this.#plot.redraw(false);
  }

  /** Updates the text summary for screen readers. */
  summarize() {
    const words = this.#lines.map(line => {
      const values = this.#history.map(e => e.figures[line.key]).filter(n => n !== null && n !== undefined);
      if (!values.length) return `${line.label}: no data yet`;
      const sorted = values.toSorted((a, b) => line.value(a) - line.value(b));
      return `${line.label}: from ${line.show(sorted[0])} to ${line.show(sorted.at(-1))}`;
    });
    setText(this.#summary, `Range of the last 5 minutes: ${words.join("; ")}.`);
  }

  #point(index) {
    this.#hover = index;
    this.#say();
  }

  // The legend shows the newest figures, or those at the pointer.
  #say() {
    if (!this.#history?.length) return;
    const entry = this.#hover === null ? this.#history.at(-1) : this.#history[this.#hover];
    for (const [i, line] of this.#lines.entries()) {
      const n = entry?.figures[line.key];
      setText(this.#texts[i], n === null || n === undefined ? "–" : line.show(n));
    }
    setText(this.#figure.querySelector(".at"), this.#hover === null || !entry ? "" : secondOf(entry.at));
  }
}

// Grid lines of a logarithmic axis.
function decades(u, axis, min, max) {
  const first = Math.ceil(Math.log10(min) - 1e-6), last = Math.floor(Math.log10(max) + 1e-6);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => 10 ** (first + i));
}

// Possible steps of a linear axis.
const INCRS = [1, 2, 5, 10, 20, 25, 50].concat(...Array.from({ length: 8 }, (_, i) => [100, 200, 250, 500].map(n => n * 10 ** i)));

/** A percentile as text. Above the last bucket bound, the exact value is unknown. */
export const percentileText = q => (q.over ? `over ${latency(q.value)}` : latency(q.value));
