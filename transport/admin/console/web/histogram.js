// Percentiles, computed from the buckets of a histogram.

/** The observations between two snapshots of a histogram. */
export function since(now, before) {
  return {
    count: now.count - before.count,
    buckets: now.buckets.map((b, i) => ({ le: b.le, count: b.count - (before.buckets[i]?.count ?? 0) })),
  };
}

/**
 * The value below which a share of the observations lies, interpolated linearly within
 * its bucket, or null without observations. over is true if the value lies above the
 * last bucket bound, which is then returned.
 */
export function quantile(histogram, share) {
  if (histogram.count <= 0) return null;
  const rank = share * histogram.count;
  let lower = 0, below = 0;
  for (const { le, count } of histogram.buckets) {
    if (count >= rank) {
      const within = count - below;
      return { value: within > 0 ? lower + (le - lower) * (rank - below) / within : le, over: false };
    }
    lower = le;
    below = count;
  }
  return { value: lower, over: true };
}
