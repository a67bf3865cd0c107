// Requests to the API, and what is counted of their answers.

import http from 'k6/http';
import { Counter, Rate } from 'k6/metrics';

const API = __ENV.API || 'http://127.0.0.1:8000';
/// Longer than the server takes to give up by itself.
const TIMEOUT = '20s';

/// The share of requests that failed: neither what was expected nor a refusal that says when to come again.
const errors = new Rate('errors');
/// Refusals that say when to come again: 429 and 503 with `Retry-After`.
const refused = new Counter('refused');
/// Writes of which nobody knows whether they took place: no answer, or a server error.
const unknown = new Counter('unknown');

// Only these are judged by their time: a refusal is quick.
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 399 }));

/// Asks; the answer, or null where there was none that was hoped for. `read` keeps the body, as text.
export function ask(step, method, path, { token, body, headers, expect = 200, read = false } = {}) {
  const all = { ...headers };
  if (token) {
    all.authorization = `Bearer ${token}`;
  }
  let payload = body;
  // A form of k6 brings its own type.
  if (body && !Object.values(body).some((part) => part && part.filename)) {
    payload = JSON.stringify(body);
    all['content-type'] = 'application/json';
  }
  const answer = http.request(method, API + path, payload, {
    headers: all,
    timeout: TIMEOUT,
    tags: { step },
    responseType: read ? 'text' : 'none',
  });
  const comeAgain = (answer.status === 429 || answer.status === 503) && answer.headers['Retry-After'] !== undefined;
  const good = answer.status === expect;
  errors.add(!good && !comeAgain);
  if (comeAgain) {
    refused.add(1);
  } else if (!good && method !== 'GET' && (answer.status === 0 || answer.status >= 500)) {
    unknown.add(1);
  }
  if (!good && !comeAgain && __ENV.TELL) {
    console.error(`${method} ${path}: ${answer.status} ${answer.error} ${answer.body}`);
  }
  return good ? answer : null;
}
