<?php
// A small app whose users log in and send each other messages: PHP and the redis extension, without a framework.
declare(strict_types=1);

// publish returns whether Redis has received the message. It takes about a second at most, and never fails the request.
function publish(string $channel, array $message): bool
{
    $url = parse_url(getenv('REDIS_URL') ?: 'redis://127.0.0.1:6379');
    try {
        $redis = new Redis();
        $redis->connect($url['host'], $url['port'] ?? 6379, 0.5, null, 0, 0.5); // timeouts to connect and to read, in seconds
        if (isset($url['pass'])) {
            $redis->auth(($url['user'] ?? '') !== '' ? [$url['user'], $url['pass']] : $url['pass']);
        }
        $redis->publish($channel, json_encode($message, JSON_INVALID_UTF8_SUBSTITUTE));
        return true;
    } catch (RedisException $e) {
        error_log('usercast: ' . $e->getMessage());
        return false;
    }
}

// valid returns a field of the form if it can be a user's name, and null if not.
function valid(string $field): ?string
{
    $value = $_POST[$field] ?? '';
    return is_string($value) && preg_match('/^[a-z0-9]{1,32}$/D', $value) ? $value : null;
}

// ReadOnlyFiles reads the sessions that PHP stores in files. Unlike PHP's own handler, it does not wait for a lock,
// does not renew the session, and does not create a file for an unknown cookie.
final class ReadOnlyFiles implements SessionHandlerInterface
{
    private string $dir;

    public function open(string $path, string $name): bool
    {
        $this->dir = $path === '' ? sys_get_temp_dir() : $path;
        return true;
    }

    public function read(string $id): string
    {
        $valid = preg_match('/^[A-Za-z0-9,-]{1,256}$/D', $id);
        return $valid && is_file("$this->dir/sess_$id") ? (string) file_get_contents("$this->dir/sess_$id") : '';
    }

    public function close(): bool { return true; }
    public function write(string $id, string $data): bool { return true; }
    public function destroy(string $id): bool { return true; }
    public function gc(int $seconds): int { return 0; }
}

// read_session returns false while another request writes the session. Answer 503 then; the browser retries.
function read_session(): bool
{
    if (!isset($_COOKIE['session'])) {
        return true;
    }
    session_set_save_handler(new ReadOnlyFiles(), false);
    return @session_start(['name' => 'session', 'read_and_close' => true]);
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$begin = fn () => session_start(['name' => 'session', 'cookie_httponly' => true, 'cookie_samesite' => 'Lax']); // with HTTPS, also 'cookie_secure' => true
if ($path === '/usercast/session') {
    if (!read_session()) {
        http_response_code(503);
        exit;
    }
} elseif (isset($_COOKIE['session'])) {
    $begin();
}
$user = $_SESSION['user'] ?? null;

switch ($_SERVER['REQUEST_METHOD'] . ' ' . $path) {
    case 'GET /':
        readfile(__DIR__ . '/page.html');
        break;

    case 'GET /usercast/session': // the session check: the hub sends it with the browser's cookies
        $user === null ? http_response_code(401) : header('X-User-ID: ' . $user);
        break;

    case 'POST /login': // a real app checks a password here
        if (valid('name') === null) {
            http_response_code(400);
            break;
        }
        session_status() === PHP_SESSION_ACTIVE || $begin();
        session_regenerate_id(true);
        $_SESSION['user'] = valid('name');
        http_response_code(204);
        break;

    case 'POST /messages':
        if ($user === null || valid('to') === null) {
            http_response_code($user === null ? 401 : 400);
            break;
        }
        $message = ['from' => $user, 'text' => (string) ($_POST['text'] ?? '')];
        $published = publish('user-' . valid('to') . ':chat', $message);
        http_response_code($published ? 204 : 503); // a real app has stored the message and answers 204
        break;

    case 'POST /logout': // delete the session first: the browser reconnects and then gets 401
        if ($user !== null) {
            session_destroy();
            publish('usercast:user-control', ['op' => 'disconnect', 'user' => $user]);
        }
        http_response_code(204);
        break;

    default:
        http_response_code(404);
}
