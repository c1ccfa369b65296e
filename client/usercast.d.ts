/** The state of a stream. */
export type State =
  /** The stream is being opened, or this tab looks for the tab that holds it. */
  | "connecting"
  /** The stream is open. From the first "open" on, each message is received or reported as a gap. */
  | "open"
  /** The stream was disconnected or rejected, and reconnects automatically. */
  | "waiting"
  /** close was called. */
  | "closed";

/** A reason of the hub or of this module: "refused", "silent" or "token". */
export type Reason = string;

/** A published message. */
export interface Message {
  readonly data: string;
  /** Defined only with the option topics. */
  readonly topic: string | undefined;
  readonly id: string;
}

export interface Options {
  /** The topics to receive; "" means messages without a topic. Default: all messages, whose topic is then undefined. */
  topics?: string | readonly string[];
  /** Send cookies to a hub on another origin. */
  withCredentials?: boolean;
  /** Called for each new EventSource. The token is sent in the query as token=. */
  token?: () => string | null | undefined | Promise<string | null | undefined>;
  /**
   * true: all tabs of the origin with the same URL and options share a stream. A string, such
   * as the user's id: only tabs with the same string share a stream. false: each tab has its
   * own stream.
   */
  share?: boolean | string;
  /**
   * Milliseconds without an event after which a stream is replaced. Default: derived from the interval of the
   * hub's pings, and initially 32 s.
   */
  silence?: number;
  /** Milliseconds, ±50 %, before the first retry after a rejection; doubled for each further retry, up to 60 s. Default: 3000. */
  retry?: number;
}

export interface Stream {
  readonly state: State;
  /** Resolves when the stream is open for the first time: then fetch the current state. */
  readonly ready: Promise<void>;
  /** Calls fn with each message of a topic, which must be in the option topics. Returns a function that removes fn. */
  on(topic: string, fn: (data: string, message: Message) => void): () => void;
  /** Calls fn with each message. */
  on(fn: (data: string, message: Message) => void): () => void;
  /** Calls fn when messages may be missing: then refetch the state. */
  onGap(fn: (reason: Reason) => void): () => void;
  /** Calls fn when the state changes. */
  onState(fn: (state: State, reason?: Reason) => void): () => void;
  /** Leaves the stream; another tab takes over. After the state "closed", listeners are not called any more. */
  close(): void;
}

/**
 * Connects to the stream of a hub. All tabs of the origin share the stream if the browser supports this.
 * Throws a TypeError if the URL or the topics are invalid.
 */
export function connect(url: string | URL, options?: Options): Stream;
