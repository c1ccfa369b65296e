<?php
// A small app whose logged-in users hear messages at once: PHP and the redis extension, no framework.
declare(strict_types=1);

function redis(): Redis
{
    $url = parse_url(getenv('REDIS_URL') ?: 'redis://127.0.0.1:6379');
    $redis = new Redis();
    $redis->connect($url['host'], $url['port'] ?? 6379);
    if (isset($url['pass'])) {
        $redis->auth(isset($url['user']) && $url['user'] !== '' ? [$url['user'], $url['pass']] : $url['pass']);
    }
    return $redis;
}

// valid is the field of the form if it may be a user's name, else null.
function valid(string $field): ?string
{
    $value = $_POST[$field] ?? '';
    return is_string($value) && preg_match('/^[a-z0-9]{1,32}$/D', $value) ? $value : null;
}

// read_session reads the session and keeps its content and its age: a session check is not an activity of the user.
function read_session(): void
{
    if (!isset($_COOKIE['session'])) {
        return; // a visitor without a cookie gets no session
    }
    session_start(['name' => 'session', 'read_and_close' => true]); // neither its content nor its age changes
    if ($_SESSION === []) { // the session of this cookie no longer exists: PHP has just created an empty one
        session_start(['name' => 'session']);
        $_SESSION === [] ? session_destroy() : session_abort();
    }
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$begin = fn () => session_start(['name' => 'session', 'cookie_httponly' => true, 'cookie_samesite' => 'Lax']); // behind HTTPS 'cookie_secure' => true
if ($path === '/usercast/session') {
    read_session();
} elseif (isset($_COOKIE['session'])) {
    $begin();
}
$user = $_SESSION['user'] ?? null;

switch ($_SERVER['REQUEST_METHOD'] . ' ' . $path) {
    case 'GET /':
        readfile(__DIR__ . '/page.html');
        break;

    case 'GET /usercast/session': // the hub asks here, with the browser's cookies, who wants a stream
        $user === null ? http_response_code(401) : header('X-User-ID: ' . $user);
        break;

    case 'POST /login': // here a password would be checked
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
        redis()->publish('user-' . valid('to') . ':chat', json_encode($message, JSON_INVALID_UTF8_SUBSTITUTE)); // the line that it is all about
        http_response_code(204);
        break;

    case 'POST /logout': // first the session ends, then the streams: they come back, and are told 401
        if ($user !== null) {
            session_destroy();
            redis()->publish('usercast:user-control', json_encode(['op' => 'disconnect', 'user' => $user]));
        }
        http_response_code(204);
        break;

    default:
        http_response_code(404);
}
