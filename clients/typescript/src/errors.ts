/**
 * What a call can throw, and which of it the client itself tries again. A caller's own `AbortSignal` rejects with
 * that signal's reason, which is none of these.
 *
 * ```text
 * ClientError
 * ├── ConnectionFailed            no connection, or it broke off                       retried
 * ├── CallTimeout
 * │   ├── ConnectTimeout          no connection in time                                retried
 * │   └── ReadTimeout             no answer in time
 * ├── InvalidResponse             an answer that is not rerankd's
 * └── StatusError                 an error answer: `status`, `code`, `requestId`
 *     ├── InvalidRequest          400 invalid_json, invalid_request
 *     ├── Unauthorized            401 unauthorized
 *     ├── Forbidden               403 forbidden
 *     ├── NotFound                404 not_found
 *     ├── MethodNotAllowed        405 method_not_allowed
 *     ├── ReceiveTimeout          408 receive_timeout                                  retried
 *     ├── TooLarge                413 too_large
 *     ├── UnsupportedMedia        415 unsupported_media
 *     ├── TooLong                 422 too_long
 *     ├── HeadersTooLarge         431 headers_too_large
 *     ├── RateLimited             429 rate_limited                                     retried
 *     ├── Overloaded              429 overloaded                                       retried
 *     ├── NotReady                503 not_ready                                        retried
 *     │   ├── Draining            503 draining                                         retried
 *     │   └── EngineDead          503 engine_dead                                      retried
 *     ├── DeadlineExceeded        504 deadline_exceeded
 *     └── ServerError             500 and every other 5xx
 *         └── ScoringError        500 engine_error
 *             └── NonFiniteScore  500 non_finite_score
 * ```
 *
 * `name` is a literal of each class, so that it outlives a minifier.
 */

/** Anything that a call throws on purpose. */
export class ClientError extends Error {
  override readonly name: string = "ClientError";
  /** Whether another attempt may succeed. */
  readonly retryable: boolean = false;
  /** Milliseconds that the server asked to wait before the next attempt. */
  readonly retryAfterMs: number | undefined = undefined;
}

/** The server could not be reached, or the connection broke off. In a browser also: CORS or a CSP forbids the call. */
export class ConnectionFailed extends ClientError {
  override readonly name: string = "ConnectionFailed";
  override readonly retryable: boolean = true;
}

/** The call took longer than it may. */
export class CallTimeout extends ClientError {
  override readonly name: string = "CallTimeout";
}

/** No connection in time; nothing was sent. */
export class ConnectTimeout extends CallTimeout {
  override readonly name: string = "ConnectTimeout";
  override readonly retryable: boolean = true;
}

/** The server did not answer in time; it may still be scoring. */
export class ReadTimeout extends CallTimeout {
  override readonly name: string = "ReadTimeout";
}

/** The answer is not one of rerankd: another service, or a proxy's own page. */
export class InvalidResponse extends ClientError {
  override readonly name: string = "InvalidResponse";
}

/** What an error answer says beside its message. */
export interface StatusFacts {
  /** The HTTP status; 0 for an item of `batchRerank` that failed alone. */
  readonly status: number;
  /** The server's word for the error, "" when the answer came from something else. */
  readonly code?: string;
  /** The field of the request that was wrong, if the server named one. */
  readonly param?: string | undefined;
  /** The server's id of this call, for its log. */
  readonly requestId?: string | undefined;
  readonly retryAfterMs?: number | undefined;
}

/** The server answered with an error. */
export class StatusError extends ClientError {
  override readonly name: string = "StatusError";
  readonly status: number;
  readonly code: string;
  readonly param: string | undefined;
  readonly requestId: string | undefined;
  override readonly retryAfterMs: number | undefined;

  constructor(message: string, facts: StatusFacts) {
    super(message);
    this.status = facts.status;
    this.code = facts.code ?? "";
    this.param = facts.param;
    this.requestId = facts.requestId;
    this.retryAfterMs = facts.retryAfterMs;
  }
}

/** A field is missing, has the wrong type or a value that makes no sense. */
export class InvalidRequest extends StatusError {
  override readonly name: string = "InvalidRequest";
}

/** No API key, or one that the server does not know. */
export class Unauthorized extends StatusError {
  override readonly name: string = "Unauthorized";
}

/** This API key may not use this route. */
export class Forbidden extends StatusError {
  override readonly name: string = "Forbidden";
}

/** No such route or model: often a wrong base URL. */
export class NotFound extends StatusError {
  override readonly name: string = "NotFound";
}

/** The route exists, the method does not: often a wrong base URL. */
export class MethodNotAllowed extends StatusError {
  override readonly name: string = "MethodNotAllowed";
}

/** The server did not receive the whole request in time. */
export class ReceiveTimeout extends StatusError {
  override readonly name: string = "ReceiveTimeout";
  override readonly retryable: boolean = true;
}

/** Too many bytes, documents or characters; the message names the limit and its setting. */
export class TooLarge extends StatusError {
  override readonly name: string = "TooLarge";
}

/** A content type or encoding that the server does not read. */
export class UnsupportedMedia extends StatusError {
  override readonly name: string = "UnsupportedMedia";
}

/** A query and document have more tokens than the model may read, and truncation is off. */
export class TooLong extends StatusError {
  override readonly name: string = "TooLong";
}

/** Too many header bytes. */
export class HeadersTooLarge extends StatusError {
  override readonly name: string = "HeadersTooLarge";
}

/** This caller's own rate limit is used up. */
export class RateLimited extends StatusError {
  override readonly name: string = "RateLimited";
  override readonly retryable: boolean = true;
}

/** The server's queue is full. */
export class Overloaded extends StatusError {
  override readonly name: string = "Overloaded";
  override readonly retryable: boolean = true;
}

/** The server is there, its model is not. */
export class NotReady extends StatusError {
  override readonly name: string = "NotReady";
  override readonly retryable: boolean = true;
}

/** The server is shutting down; another replica may answer. */
export class Draining extends NotReady {
  override readonly name: string = "Draining";
}

/** The engine is gone; a supervisor starts another. */
export class EngineDead extends NotReady {
  override readonly name: string = "EngineDead";
}

/** The call's own time was over before its scores were there; more of it is the caller's choice. */
export class DeadlineExceeded extends StatusError {
  override readonly name: string = "DeadlineExceeded";
}

/** The server, or a proxy before it, failed. */
export class ServerError extends StatusError {
  override readonly name: string = "ServerError";
}

/** The model failed on this request. */
export class ScoringError extends ServerError {
  override readonly name: string = "ScoringError";
}

/** The model's score is not a number. */
export class NonFiniteScore extends ScoringError {
  override readonly name: string = "NonFiniteScore";
}
