/**
 * One line of progress with the time left, on standard error. Silent when that is not a terminal, so that scripts and
 * pipes see nothing of it.
 */
export class Progress {
  readonly #label: string;
  readonly #total: number;
  readonly #stream: NodeJS.WriteStream;
  readonly #started = performance.now();
  readonly #first: number;
  #lastDrawn = 0;
  #drawn = false;

  /**
   * @param label what is going on, in a few words
   * @param total number of units that make it complete
   * @param first units done before this run began (a resumed run); they do not count towards the speed. Default 0.
   */
  constructor(label: string, total: number, first = 0, stream: NodeJS.WriteStream = process.stderr) {
    this.#label = label;
    this.#total = total;
    this.#first = first;
    this.#stream = stream;
  }

  /** Show `done` of the total, and a few words of detail. Draws at most ten times a second. */
  update(done: number, detail = ""): void {
    if (!this.#stream.isTTY) return;
    const now = performance.now();
    if (done < this.#total && now - this.#lastDrawn < 100) return;
    this.#lastDrawn = now;
    const elapsed = (now - this.#started) / 1000;
    const advanced = done - this.#first;
    const left = advanced > 0 ? duration((elapsed / advanced) * (this.#total - done)) : "?";
    const share = `${Math.floor((100 * done) / this.#total)} %`;
    const line = `${this.#label}  ${share}  ${detail}${detail === "" ? "" : "  "}${left} left`;
    this.#stream.write(`\r\x1b[2K${line.slice(0, Math.max(20, (this.#stream.columns ?? 80) - 1))}`);
    this.#drawn = true;
  }

  /** Take the line away. */
  finish(): void {
    if (this.#drawn) this.#stream.write("\r\x1b[2K");
    this.#drawn = false;
  }
}

/** Seconds in words a person reads at a glance: `41 s`, `3 min 20 s`, `1 h 5 min`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
