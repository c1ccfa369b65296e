// Formatting of numbers and times.

/** A number with thousands separators. */
export const count = n => Math.round(n).toLocaleString("en");

/** A rate per second, with one decimal if it is small. */
export function rate(n) {
  if (n === null) return "–";
  return n > 0 && n < 9.95 ? n.toFixed(1).replace(/\.0$/, "") : count(n);
}

/** Bytes in powers of 1024. */
export function bytes(n) {
  for (const unit of ["B", "KiB", "MiB"]) {
    if (n < 1000) return `${n < 10 && unit !== "B" ? n.toFixed(1) : Math.round(n)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} GiB`;
}

/** A latency in seconds, with at most three significant digits. */
export function latency(seconds) {
  if (seconds < 0.0009995) return `${Math.round(seconds * 1e6)} µs`;
  const ms = seconds * 1000;
  if (ms < 9.995) return `${Number(ms.toFixed(2))} ms`;
  if (ms < 99.95) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  return `${Number(seconds.toFixed(2))} s`;
}

/** A duration in seconds. */
export function lasting(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.floor(s / 60)} min`;
  const h = Math.floor(s / 3600);
  return h < 48 ? `${h} h ${Math.floor(s / 60) % 60} min` : `${Math.floor(h / 24)} d ${h % 24} h`;
}

/** "1 stream", "2 streams". */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** The time of day of a Unix time in seconds. */
export const minuteOf = at => clock.format(at * 1000);
export const secondOf = at => clockSeconds.format(at * 1000);
