/** What a stream is doing. */
export type State =
  /** It is being opened, or this tab looks for the tab that has it. */
  | "connecting"
  /** From the first "open" on, each message is heard or announced as a gap. */
  | "open"
  /** It was lost or refused, and comes back by itself. */
  | "waiting"
  /** close was called. */
  | "closed";

/** Reasons of the hub, and of this module: "refused", "silent" and "token". */
export type Reason = string;

/** A message, as it was published. */
export interface Message {
  readonly data: string;
  /** Known only if the option topics is given. */
  readonly topic: string | undefined;
  readonly id: string;
}

export interface Options {
  /** Only these topics; "" is "no topic". Left out: all, and no message tells its topic. */
  topics?: string | readonly string[];
  /** Send cookies to another origin. */
  withCredentials?: boolean;
  /** Asked anew for each new EventSource; goes into the query as token=. */
  token?: () => string | null | undefined | Promise<string | null | undefined>;
  /**
   * true: all tabs of the origin that connect to the same URL in the same way share a
   * stream. A string: those that say the same string, such as the user's id, do. false:
   * none do.
   */
  share?: boolean | string;
  /** Milliseconds without a sign of life after which a stream is dead. Left out: learned from the hub's pings, 32 s at first. */
  silence?: number;
  /** Milliseconds, ±50 %, before the first return from a refusal; doubled with each further one, to 60 s. 3000 if left out. */
  retry?: number;
}

export interface Stream {
  readonly state: State;
  /** Resolves when the stream is open for the first time: now fetch what was before. */
  readonly ready: Promise<void>;
  /** Calls fn with each message of a topic, which must be in the option topics. Returns a function that ends it. */
  on(topic: string, fn: (data: string, message: Message) => void): () => void;
  /** Calls fn with each message. */
  on(fn: (data: string, message: Message) => void): () => void;
  /** Calls fn when messages may be missing: fetch the state anew. */
  onGap(fn: (reason: Reason) => void): () => void;
  /** Calls fn when the state changes. */
  onState(fn: (state: State, reason?: Reason) => void): () => void;
  /** Ends this tab's part; nothing is called any more after onState's "closed". */
  close(): void;
}

/**
 * Connects to a hub's stream, which all tabs of this origin share where the browser can.
 * Throws a TypeError for an URL or topics that cannot be.
 */
export function connect(url: string | URL, options?: Options): Stream;
