@echo off
rem Starts the pcoder of this folder, wherever the folder is and whatever its name holds.
setlocal DisableDelayedExpansion
set "PCODER_PROGRAM=%~dp0bin\win32-x64\pcoder.exe"
if /i "%PROCESSOR_ARCHITECTURE%"=="ARM64" if exist "%~dp0bin\win32-arm64\pcoder.exe" set "PCODER_PROGRAM=%~dp0bin\win32-arm64\pcoder.exe"
if not exist "%PCODER_PROGRAM%" goto missing
"%PCODER_PROGRAM%" %*
exit /b %ERRORLEVEL%
:missing
echo error: this folder has no pcoder for Windows on %PROCESSOR_ARCHITECTURE% 1>&2
echo. 1>&2
echo hint: on such a machine, make a folder for it with `pcoder bundle export` 1>&2
exit /b 3
