// The text of `/metrics`, as far as a page shows it.

export interface Series {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** Each line that is no comment. */
export function series(text: string): Series[] {
  const found: Series[] = [];
  for (const line of text.split("\n")) {
    const [, name, labels = "", value] = /^(\w+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) continue;
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)];
    found.push({
      name,
      labels: Object.fromEntries(pairs.map(([, label = "", text = ""]) => [label, text])),
      value: Number(value),
    });
  }
  return found;
}

/** The sum over all labels; nothing where there is no such series. */
export function total(all: Series[], name: string): number | undefined {
  const found = all.filter((one) => one.name === name);
  return found.length > 0 ? found.reduce((sum, one) => sum + one.value, 0) : undefined;
}

/** A quantile of a summary, in seconds; nothing when nothing was measured in the last minute. */
export function quantile(all: Series[], name: string, which: string): number | undefined {
  const found = all.find((one) => one.name === name && one.labels["quantile"] === which);
  return found && found.value > 0 ? found.value : undefined;
}
