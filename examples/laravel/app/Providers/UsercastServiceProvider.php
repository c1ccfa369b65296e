<?php
namespace App\Providers;

use App\Http\Middleware\ReadOnlySession;
use Illuminate\Auth\Events\{CurrentDeviceLogout, Logout, OtherDeviceLogout, PasswordReset};
use Illuminate\Http\Request;
use Illuminate\Support\Facades\{Event, Redis, Route};
use Illuminate\Support\ServiceProvider;

class UsercastServiceProvider extends ServiceProvider
{
    public function boot()
    {
        Route::middleware([ReadOnlySession::class, 'web'])->get('/usercast/session', function (Request $request) {
            $user = $request->user();
            return $user ? response('')->header('X-User-ID', (string) $user->getAuthIdentifier()) : response('', 401);
        });

        Event::listen([Logout::class, CurrentDeviceLogout::class, OtherDeviceLogout::class, PasswordReset::class], function ($event) {
            if ($event->user) {
                $command = ['op' => 'disconnect', 'user' => (string) $event->user->getAuthIdentifier()];
                app()->terminating(fn () => self::publish('usercast:user-control', $command)); // now the session still exists
            }
        });
    }

    /** Publishes, or reports to the log that Redis is unavailable: the request goes on. */
    public static function publish(string $channel, $data): void
    {
        rescue(fn () => Redis::connection('usercast')->publish($channel, json_encode($data, JSON_INVALID_UTF8_SUBSTITUTE)));
    }
}
