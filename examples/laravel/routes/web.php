<?php
use App\Models\User;
use App\Providers\UsercastServiceProvider;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\{Auth, DB, Route};

$valid = fn ($value) => is_string($value) && preg_match('/^[a-z0-9]{1,32}$/D', $value);

Route::get('/', fn () => response()->file(base_path('page.html'), ['Content-Type' => 'text/html; charset=utf-8']));

Route::post('/login', function (Request $request) use ($valid) { // a real app checks a password here
    abort_unless($valid($request->name), 400);
    Auth::login(User::firstOrCreate(['name' => $request->name], ['password' => '-']), $request->boolean('remember'));
    $request->session()->regenerate();
    return response()->noContent();
});

Route::post('/messages', function (Request $request) use ($valid) {
    abort_unless(Auth::check(), 401);
    abort_unless($valid($request->to), 400);
    $message = ['from' => Auth::id(), 'text' => (string) $request->text];
    DB::afterCommit(fn () => UsercastServiceProvider::publish("user-{$request->to}:chat", $message));
    return response()->noContent();
});

Route::post('/logout', function (Request $request) { // as in Laravel's starter kits: the provider publishes
    Auth::logout();
    $request->session()->invalidate();
    $request->session()->regenerateToken();
    return response()->noContent();
});
